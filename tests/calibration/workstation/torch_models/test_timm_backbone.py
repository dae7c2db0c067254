"""Backbones from timm, exported to ONNX: random weights, and the real ones of EfficientNet-Lite0."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from calibration.errors import BackboneError
from calibration.network.fusion import feature_shape
from calibration.workstation.fit.backbone_choice import BackboneChoice, open_backbone
from tests.support.seen_by_torch import assert_close, exported, image, on_first_grid

torch = pytest.importorskip("torch", reason="torch is an extra: pip install --editable '.[fit]'")
timm = pytest.importorskip("timm", reason="timm is an extra: pip install --editable '.[fit]'")

from calibration.workstation.torch_models.timm_backbone import timm_backbone  # noqa: E402 - it imports torch, which may be absent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LITE0 = "tf_efficientnet_lite0"
SIZE = (96, 128)


@pytest.fixture(scope="module")
def lite0() -> Any:  # noqa: ANN401 - timm is untyped
    """EfficientNet-Lite0 with random weights."""
    torch.manual_seed(0)
    return timm.create_model(LITE0, pretrained=False).eval()


@pytest.fixture(scope="module")
def random_weights(lite0: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ANN401
    path = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.save(lite0.state_dict(), path)
    return path


def by_hand(model: Any, stages: tuple[int, ...]) -> NDArray[np.float32]:  # noqa: ANN401
    """The outputs of some blocks at the resolution of the first, one block after another."""
    with torch.no_grad():
        flow = model.bn1(model.conv_stem(torch.from_numpy(image(SIZE))))
        seen = []
        for number, block in enumerate(model.blocks):
            flow = block(flow)
            if number in stages:
                seen.append(flow)
        return on_first_grid(seen)


@pytest.mark.slow
@pytest.mark.parametrize("stages", [(2, 4), (3, 4), (1,)])
def test_the_exported_stages_are_those_of_torch(lite0: Any, random_weights: Path, stages: tuple[int, ...]) -> None:  # noqa: ANN401
    backbone = timm_backbone(LITE0, [f"blocks.{stage}" for stage in stages], random_weights, *SIZE)
    expected = by_hand(lite0, stages)
    assert feature_shape(backbone) == expected.shape[1:]
    assert backbone.input_size == SIZE
    assert_close(exported(backbone), expected)


@pytest.mark.slow
def test_real_weights_without_a_classifier_are_taken(weights: Path) -> None:
    path = weights / "tf_efficientnet_lite0.safetensors"
    backbone = timm_backbone(LITE0, ["blocks.2", "blocks.4"], path, *SIZE)
    model = timm.create_model(LITE0, pretrained=False).eval()
    from safetensors.torch import load_file  # noqa: PLC0415 - an extra, as torch is

    model.load_state_dict(load_file(path), strict=False)
    assert_close(exported(backbone), by_hand(model, (2, 4)))
    assert feature_shape(backbone) == (40 + 112, 12, 16)
    assert backbone.level_channels == (40, 112)
    (graph,) = backbone.graphs
    assert graph.mean == graph.std == (0.5, 0.5, 0.5)
    assert (backbone.name, backbone.stages) == (LITE0, ("blocks.2", "blocks.4"))
    assert backbone.weights_sha256 == (hashlib.sha256(path.read_bytes()).hexdigest(),)


@pytest.mark.slow
def test_a_stage_named_twice_counts_once(random_weights: Path) -> None:
    backbone = timm_backbone(LITE0, ["blocks.2", "blocks.2"], random_weights, *SIZE)
    assert backbone.stages == ("blocks.2",)
    assert backbone.level_channels == (40,)


def test_a_stage_that_is_not_there_lists_those_that_are(random_weights: Path) -> None:
    with pytest.raises(BackboneError, match=r"no stage 'blocks\.9' in tf_efficientnet_lite0 at 96x128") as caught:
        timm_backbone(LITE0, ["blocks.3", "blocks.9"], random_weights, *SIZE)
    assert "blocks.4 (112 channels, 6x8)" in caught.value.remedy


def test_without_stages_those_that_there_are_are_listed(random_weights: Path) -> None:
    with pytest.raises(BackboneError, match="no --stages given") as caught:
        timm_backbone(LITE0, [], random_weights, *SIZE)
    assert "blocks.3 (80 channels, 6x8)" in caught.value.remedy


@pytest.mark.parametrize(("name", "near"), [("efficientnett_b4", "efficientnet_b4"), ("resnet_18", "resnet18")])
def test_an_unknown_name_suggests_near_ones(name: str, near: str) -> None:
    with pytest.raises(BackboneError, match=f"no model '{name}'") as caught:
        timm_backbone(name, ["layer1"], None, *SIZE)
    assert near in caught.value.remedy


def test_a_name_like_no_other_still_says_what_to_do() -> None:
    with pytest.raises(BackboneError) as caught:
        timm_backbone("@", ["layer1"], None, *SIZE)
    assert caught.value.remedy == "give filterbank or an ONNX file"


def test_weights_of_another_model_are_refused(random_weights: Path) -> None:
    with pytest.raises(BackboneError, match=r"lite0\.pth does not (fit|hold the weights of) mobilenetv2_050"):
        timm_backbone("mobilenetv2_050", ["blocks.2"], random_weights, *SIZE)


def test_weights_of_a_like_model_are_refused_with_the_keys(weights: Path) -> None:
    with pytest.raises(BackboneError, match=r"does not fit efficientnet_b0: missing blocks\.0\.0\.se\.conv_reduce"):
        timm_backbone("efficientnet_b0", ["blocks.2"], weights / "tf_efficientnet_lite0.safetensors", *SIZE)


@pytest.mark.parametrize("kind", ["nonsense", "empty", "missing", "folder", "list"])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, kind: str, suffix: str) -> None:
    name = f"{kind}.{suffix}"
    (tmp_path / f"nonsense.{suffix}").write_bytes(b"nonsense")
    (tmp_path / f"empty.{suffix}").touch()
    (tmp_path / f"folder.{suffix}").mkdir()
    torch.save([1, 2, 3], tmp_path / f"list.{suffix}")
    with pytest.raises(BackboneError, match=f"{name} does not hold the weights of {LITE0}"):
        timm_backbone(LITE0, ["blocks.2"], tmp_path / name, *SIZE)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return pytest.fail, ("code in a weight file was run",)

    torch.save({"trap": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(BackboneError, match="does not hold the weights"):
        timm_backbone(LITE0, ["blocks.2"], tmp_path / "trap.pth", *SIZE)


def test_without_a_network_the_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, *, pretrained: bool) -> Any:  # noqa: ANN401
        if pretrained:
            message = "could not reach the hub"
            raise OSError(message)
        return create(name, pretrained=False)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(BackboneError, match=r"(?s)could not be downloaded: could not reach the hub.*--weights FILE"):
        timm_backbone(LITE0, ["blocks.2"], None, *SIZE)


@pytest.mark.slow
def test_two_timm_models_are_joined_each_with_its_stages(random_weights: Path) -> None:
    names, weights = f"{LITE0}+{LITE0}", Path(f"{random_weights}+{random_weights}")
    both = open_backbone(BackboneChoice(names, "blocks.2+blocks.3,blocks.4", weights), SIZE)
    assert both.stages == ("blocks.2", "blocks.3", "blocks.4")
    assert [len(graph.levels) for graph in both.graphs] == [1, 2]
    assert feature_shape(both) == (40 + 80 + 112, SIZE[0] // 8, SIZE[1] // 8)
