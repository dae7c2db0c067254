"""Every family of backbones that the papers use, and transformers, with random weights: exported, fused, taught."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from calibration.backbones.backbone import Backbone
from calibration.backbones.receptive_field import grid_cell
from calibration.detectors.gaussian import Gaussian
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.patch_svdd import PatchSvdd
from calibration.errors import BackboneError
from calibration.imaging.preprocess import Preprocess
from calibration.onnx_graph import OPSET, FeatureGraph
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.presets import PRESETS, Preset
from calibration.workstation.settings import Settings
from tests.support.networks import network_of
from tests.support.real_tensorrt import prove
from tests.support.seen_by_torch import assert_close, exported, image, on_first_grid, reduced
from tests.support.washers import Drawn, washer

torch = pytest.importorskip("torch", reason="torch is an extra: pip install --editable '.[fit]'")
timm = pytest.importorskip("timm", reason="timm is an extra: pip install --editable '.[fit]'")

from timm.models import efficientnet  # noqa: E402 - an extra
from timm.models.vision_transformer import checkpoint_filter_fn  # noqa: E402 - an extra
from torch import nn  # noqa: E402 - an extra

from calibration.workstation.torch_models.patch_svdd.encoders import Encoders, over_frames  # noqa: E402 - as below
from calibration.workstation.torch_models.timm_backbone import _arrangement, _tokens, timm_backbone  # noqa: E402 - it imports torch, which may be absent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Family:
    """A model, some of its stages and what they should be.

    Attributes:
        levels: (channels, h, w) of each stage.
        size: (height, width) of the input.
        chain: Layers of a convolutional network up to the stages, one after another; of others timm is asked.
        changes: Arguments that make the model smaller.
    """

    stages: tuple[str, ...]
    levels: tuple[tuple[int, int, int], ...]
    size: tuple[int, int] = (64, 96)
    chain: tuple[str, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)


RESNET = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3")
FAMILIES = {
    "efficientnet_b4": Family(
        ("blocks.3", "blocks.4"), ((112, 4, 6), (160, 4, 6)), chain=("conv_stem", "bn1", "blocks")
    ),
    "vgg11": Family(("features.6", "features.13"), ((256, 16, 24), (512, 8, 12)), chain=("features",)),
    "resnet18": Family(("layer1", "layer2", "layer3"), ((64, 16, 24), (128, 8, 12), (256, 4, 6)), chain=RESNET),
    "wide_resnet50_2": Family(
        ("layer2", "layer3"), ((512, 8, 12), (1024, 4, 6)), chain=RESNET, changes={"layers": (1, 1, 1, 1)}
    ),
    "convnext_atto": Family(("stages.1", "stages.2"), ((80, 8, 12), (160, 4, 6)), chain=("stem", "stages")),
    "vit_tiny_patch16_224": Family(("blocks.0", "blocks.2"), ((192, 4, 6),) * 2, changes={"depth": 4}),
    "deit_tiny_distilled_patch16_224": Family(("blocks.1",), ((192, 4, 6),), changes={"depth": 3}),
    "vit_small_patch14_reg4_dinov2": Family(
        ("blocks.1", "blocks.2"), ((384, 4, 6),) * 2, (56, 84), changes={"depth": 3}
    ),
    "swin_tiny_patch4_window7_224": Family(
        ("layers.0", "layers.1"), ((24, 16, 24), (48, 8, 12)), changes={"embed_dim": 24, "depths": (2, 2, 2, 2)}
    ),
}
TRANSFORMERS = [name for name in FAMILIES if "vit" in name or "deit" in name]
EACH = pytest.mark.parametrize("name", FAMILIES)
EACH_TRANSFORMER = pytest.mark.parametrize("name", TRANSFORMERS)

CREATE = timm.create_model
PICTURES = Drawn([washer(number) for number in range(10)])


@cache
def random_model(name: str, **changes: Any) -> nn.Module:  # noqa: ANN401 - timm is untyped
    """A model of random weights and statistics, no layer of which does nothing."""
    torch.manual_seed(0)
    model: nn.Module = CREATE(name, pretrained=False, **changes).eval()
    if name.startswith("vgg"):
        model.pre_logits = nn.Identity()  # nine tenths of its weights, and behind all stages
        model.head = nn.Identity()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2.0)
        for path, values in model.named_parameters():
            if path.endswith("gamma"):
                values.uniform_(0.5, 1.5)  # layer scale, which begins at nearly zero
            elif path.endswith(("pos_embed", "_token", "bias_table", "bias")):
                values.normal_(0, 0.5)
    return model


def model_of(name: str) -> Any:  # noqa: ANN401 - timm is untyped
    """A copy of its own."""
    return copy.deepcopy(random_model(name, **FAMILIES[name].changes))


@cache
def backbone_of(name: str) -> Backbone:
    """A family's backbone, whose weights come as if timm had downloaded them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", lambda *_, **__: model_of(name))
        return timm_backbone(name, FAMILIES[name].stages, None, *FAMILIES[name].size)


def layers(model: nn.Module, chain: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    for part in chain:
        module = getattr(model, part)
        if part in {"blocks", "features", "stages"}:
            yield from ((f"{part}.{number}", layer) for number, layer in enumerate(module))
        else:
            yield part, module


def maps_by_torch(name: str) -> list[Any]:
    """The maps of the stages without hooks: layer after layer, or as timm's own function takes tokens apart."""
    family, model = FAMILIES[name], model_of(name)
    flow = torch.from_numpy(image(family.size))
    seen = {}
    with torch.no_grad():
        if not family.chain:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's remarks on how timm resamples
                model.set_input_size(img_size=family.size)
            indices = [int(stage.rpartition(".")[2]) for stage in family.stages]
            return list(model.forward_intermediates(flow, indices=indices, intermediates_only=True))
        for path, layer in layers(model, family.chain):
            flow = layer(flow.clone())
            seen[path] = flow
    return [seen[stage] for stage in family.stages]


@pytest.mark.slow
@EACH
def test_each_family_gives_what_torch_gives(name: str) -> None:
    backbone = backbone_of(name)
    (part,) = backbone.graphs
    assert tuple(level.shape for level in part.levels) == FAMILIES[name].levels
    assert_close(exported(backbone), on_first_grid(maps_by_torch(name)))
    cell, step = grid_cell(backbone), FAMILIES[name].size[0] // FAMILIES[name].levels[0][1]
    assert (cell.patch_px, cell.stride_px) == (step, step)
    assert (cell.field_px is None) == (name in TRANSFORMERS or "swin" in name)
    assert [(each.domain, each.version) for each in part.model.opset_import] == [("", OPSET)]


@pytest.mark.slow
@EACH
def test_each_family_can_be_calibrated(name: str, tmp_path: Path) -> None:
    """``calibrate`` itself holds the fused network against NumPy."""
    settings = Settings(Preprocess(*FAMILIES[name].size), MeanShift(location="shared"), threads=1)
    bundle = calibrate(PICTURES, backbone_of(name), settings, tmp_path / "bundle", lambda *_: None)
    assert bundle.manifest.backbone.stages == FAMILIES[name].stages
    assert bundle.manifest.backbone.channels == sum(level[0] for level in FAMILIES[name].levels)


@pytest.mark.slow
@EACH
def test_nvidia_builds_each_family_in_both_precisions(name: str, request: pytest.FixtureRequest) -> None:
    prove(name, network_of(backbone_of(name), MeanShift(location="shared", dimensions=8)), request)


def preset_backbone(preset: Preset) -> Backbone:
    """The preset's backbone and stages; smaller images, fewer channels and layers."""
    if isinstance(preset.detector, PatchSvdd):
        mean = np.zeros((96, 96, 3), np.float32)
        return Backbone((FeatureGraph(over_frames(Encoders(), 96, 96, mean)),), preset.detector.name)
    name, stages = preset.backbone.partition(".")[0], tuple(preset.stages.split(","))
    if "resnet" in name:
        assert FAMILIES[name].stages == stages
        return backbone_of(name)
    whole: Any = efficientnet._gen_efficientnet
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            efficientnet,
            "_gen_efficientnet",
            lambda name, channel_multiplier, depth_multiplier, **options: whole(name, 0.25, 0.2, **options),  # noqa: ARG005
        )
        patch.setattr(timm, "create_model", lambda name, **_: CREATE(name, pretrained=False))
        return timm_backbone(preset.backbone, stages, None, 96, 96)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_nvidia_builds_each_preset_in_both_precisions(name: str, request: pytest.FixtureRequest) -> None:
    detector = PRESETS[name].detector
    if isinstance(detector, PatchSvdd):
        detector = replace(detector, entries=100)  # all patches, of noise: half a minute
    prove(f"preset {name}", network_of(preset_backbone(PRESETS[name]), detector), request)


@pytest.mark.slow
@EACH_TRANSFORMER
def test_gaussian_averages_the_patches_of_a_transformer_and_no_other_tokens(name: str, tmp_path: Path) -> None:
    backbone = backbone_of(name)
    means = torch.cat([each.mean(dim=(2, 3)) for each in maps_by_torch(name)], dim=1)
    assert_close(reduced(backbone, Gaussian()), np.asarray(means)[0, :, None, None])
    settings = Settings(Preprocess(*backbone.input_size), Gaussian(), threads=1)
    bundle = calibrate(PICTURES, backbone, settings, tmp_path / "bundle", lambda *_: None)
    assert bundle.manifest.detector.name == "gaussian"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_small_patch14_reg4_dinov2", "deit_tiny_distilled_patch16_224"])
def test_position_embeddings_of_a_weight_file_are_resampled_to_the_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """As timm does it when it creates a model of that size and loads the file into it."""
    family = FAMILIES[name]
    torch.save(model_of(name).state_dict(), tmp_path / "weights.pth")
    expected = CREATE(name, pretrained=False, img_size=family.size, **family.changes).eval()
    expected.load_state_dict(checkpoint_filter_fn(model_of(name).state_dict(), expected))
    monkeypatch.setattr(timm, "create_model", lambda name, **_: CREATE(name, pretrained=False, **family.changes))
    backbone = timm_backbone(name, ("blocks.1",), tmp_path / "weights.pth", *family.size)
    picture = torch.from_numpy(image(family.size))
    assert_close(
        exported(backbone), on_first_grid(expected.forward_intermediates(picture, [1], intermediates_only=True))
    )


def refusal(name: str, stage: str, size: tuple[int, int]) -> BackboneError:
    """Why this model, with random weights, is not cut there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", lambda *_, **__: CREATE(name, pretrained=False))
        with pytest.raises(BackboneError) as caught:
            timm_backbone(name, (stage,), None, *size)
    return caught.value


def test_a_stage_that_a_transformer_lacks_lists_its_blocks() -> None:
    error = refusal("test_vit", "layer1", (64, 64))
    assert error.what == "no stage 'layer1' in test_vit at 64x64"
    listed = [f"blocks.{number} (64 channels, 4x4)" for number in range(6)]
    assert error.remedy == f"give one or more of these, separated by commas: {'; '.join(listed)}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("test_vit", "blocks.1.attn.q_norm"),  # (1, heads, tokens, channels)
        ("test_vit", "norm_pre.weight"),
        ("test_vit", "fc_norm"),
        ("test_convnext", "stages.1.blocks.0.norm"),  # (1, h, w, channels)
        ("test_mambaout", "stages.1.blocks.0"),  # (1, h, w, channels), but timm says so of its stages only
        ("mixer_s16_224", "blocks.0"),  # (1, tokens, channels), and timm does not say what the tokens are
    ],
)
def test_what_is_not_surely_a_feature_map_is_refused(name: str, stage: str) -> None:
    assert refusal(name, stage, (224, 224)).what == f"no stage '{stage}' in {name} at 224x224"


@pytest.mark.slow
def test_a_size_that_patches_do_not_fill_is_refused_with_one_that_they_do() -> None:
    error = refusal("vit_small_patch14_reg4_dinov2", "blocks.1", (64, 96))
    assert error.what.endswith("takes patches of 14x14 pixels, which do not fill 64x96")
    assert error.remedy == "give whole patches, e.g. --size 70x98"


def test_a_size_that_a_model_does_not_take_is_refused_with_the_one_it_does() -> None:
    error = refusal("mixer_s16_224", "stem.proj", (64, 96))
    assert error.what.startswith("mixer_s16_224 does not take a network input of 64x96: Input height")
    assert error.remedy == "give another size, e.g. the one it was trained with: --size 224x224"


@pytest.mark.parametrize("tokens", [23, 24, 25, 29, 30])
def test_tokens_are_laid_out_only_where_they_are_those_of_the_grid_or_those_with_all_before_them(tokens: int) -> None:
    arrange = _tokens(torch.zeros(1, tokens, 8), (4, 6), 5)
    assert (arrange is not None) == (tokens in {24, 29})


def test_windows_taken_as_images_of_their_own_are_no_feature_map() -> None:
    whole, windows = torch.zeros(1, 8, 4, 6), torch.zeros(2, 8, 4, 6)
    assert _arrangement(nn.Identity(), "stage", whole, (64, 96)) is not None
    assert _arrangement(nn.Identity(), "stage", windows, (64, 96)) is None
