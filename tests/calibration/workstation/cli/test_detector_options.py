"""What the options of the command line stand for, and which do not go together."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from calibration.backbones.backbone import Backbone
from calibration.detectors.gaussian import Gaussian
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.detectors.patchcore import PatchCore
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import SettingError
from calibration.network.fusion import feature_network, feature_shape
from calibration.onnx_graph import FLOAT, GraphBuilder
from calibration.workstation.cli.detector_options import parse_detector, with_mean_shift_options
from calibration.workstation.fit.backbone_choice import (
    BackboneChoice,
    backbone_choices,
    open_backbone,
    tuning_candidates,
)
from tests.support.network_features import features_of as network_features
from tests.support.outcome import Outcome, assert_refused
from tests.support.washers import washer

if TYPE_CHECKING:
    from collections.abc import Callable


Float32 = NDArray[np.float32]
SIDE = 64
NOTHING, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def test_each_option_of_mean_shift_reaches_it_and_only_it() -> None:
    given = {
        "alpha": "0.5",
        "averaging": 3,
        "location": "shared",
        "pooling_order": 4.0,
        "patch": 2,
        "dimensions": 50,
        "modes": 2,
    }
    assert with_mean_shift_options(MeanShift(), given) == MeanShift(0.5, 3, "shared", 4.0, 2, 50, 2)
    none = dict.fromkeys(given)
    for detector in (MeanShift(), Padim(), Gaussian(), PatchCore()):
        assert with_mean_shift_options(detector, none) == detector
    for option, value in given.items():
        with pytest.raises(SettingError, match=f"--{option.replace('_', '-')} belongs to --detector mean_shift"):
            with_mean_shift_options(Padim(), {**none, option: value})


def test_options_change_a_preset_and_leave_the_rest_of_it() -> None:
    base = PatchCore(coreset=0.25, neighbours=3)
    assert parse_detector("patchcore:neighbours=5", base) == PatchCore(coreset=0.25, neighbours=5)
    assert parse_detector("patchcore", base) == base


BAD = {
    "--detector padim --alpha 0.5": ("--alpha belongs to --detector mean_shift, not to padim", "padim:OPTION=VALUE"),
    "--detector padim --dimensions 9": ("--dimensions belongs to --detector mean_shift", "padim:OPTION=VALUE"),
    "--detector oracle": ("'oracle' is not known", "one of mean_shift"),
    "--preset oracle": ("--preset 'oracle' is not known", "one of hermann2022"),
    "--preset padim2021 --detector patchcore": ("the preset is one of padim, not of patchcore", "padim:OPTION=VALUE"),
    "--preset padim2021 --auto": ("--auto chooses what --preset would say", "leave out"),
    "--location global --averaging 2": ("averages over the whole image", "leave out --averaging"),
    "--detector padim:dimensions=0": ("dimensions = 0 is too small", "1 or more"),
    "--detector gaussian:components=pca,retained_variance=2": (r"retained_variance = 2\.0", r"0\.99"),
    "--detector patchcore:coreset=0": (r"coreset = 0\.0 is outside \(0, 1\]", r"0\.01"),
    "--detector patchcore:neighbours=1": ("neighbours = 1 is too few", "2 or more"),
    "--detector patchcore --threshold-rule chi-square": ("no chi-square law", "leave out --threshold-rule"),
    "--backbone filterbank+resnet18+resnet34 --stages layer1": ("2 timm models, --stages has those of 1", r"A\+B"),
    "--backbone resnet18+resnet34 --stages layer1+layer2 --weights x.pth": ("--weights has those of 1", r"A\+B"),
    "--backbone filterbank+nowhere.onnx": (r"cannot read the backbone nowhere\.onnx", "check the path"),
    "--backbone filterbank+x.onnx --weights w.pth": (
        "--weights and --stages belong to a timm model",
        "--backbone NAME",
    ),
}


@pytest.mark.parametrize("options", BAD)
def test_fit_refuses_them_with_the_remedy(
    command: Callable[..., Outcome], good_folder: Path, tmp_path: Path, options: str
) -> None:
    outcome = command("fit", good_folder, "--out", tmp_path / "out", "--size", "64", *options.split())
    assert_refused(outcome, *BAD[options])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", ["--location elsewhere", "--pooling-order most"])
def test_fit_refuses_values_that_are_not_on_the_list(
    command: Callable[..., Outcome], good_folder: Path, tmp_path: Path, options: str
) -> None:
    outcome = command("fit", good_folder, "--out", tmp_path / "out", *options.split())
    assert outcome.code == 2
    assert options.split(maxsplit=1)[0] in outcome.err


def averaging_backbone(folder: Path, cell: int) -> str:
    """A file whose features are the colours averaged over cells of so many pixels, those at the border left out."""
    graph = GraphBuilder("averages")
    graph.add("AveragePool", "image", kernel_shape=[cell, cell], strides=[cell, cell], output="features")
    grid = SIDE // cell
    model = graph.model({"image": (FLOAT, (1, 3, SIDE, SIDE))}, {"features": (FLOAT, (1, 3, grid, grid))})
    path = folder / f"cells_of_{cell}.onnx"
    onnx.save(model, path)
    return str(path)


def chosen(names: str) -> Backbone:
    return open_backbone(BackboneChoice(names, "", None, NOTHING, ONE), (SIDE, SIDE))


def features_of(names: str) -> Float32:
    network = feature_network(chosen(names), MeanShift(averaging=1), divide_brightness=False)
    with OnnxRuntimeEngine(network.SerializeToString(), 1) as engine:
        return network_features(engine, washer(1))


def test_two_backbones_are_one_on_the_grid_of_the_first(tmp_path: Path) -> None:
    path = averaging_backbone(tmp_path, 8)
    both, other_way = chosen(f"filterbank+{path}"), chosen(f"{path}+filterbank")
    assert both.name == "filterbank+cells_of_8.onnx"
    assert both.level_channels == (79, 3)
    assert both.weights_sha256 == (hashlib.sha256(Path(path).read_bytes()).hexdigest(),)
    assert both.input_size == (SIDE, SIDE)
    assert feature_shape(both) == (82, 4, 4)
    assert feature_shape(other_way) == (82, 8, 8)


def test_each_backbone_gives_what_it_gives_alone(tmp_path: Path) -> None:
    first, second = averaging_backbone(tmp_path, 16), "filterbank"
    both = features_of(f"{first}+{second}+{first}")
    alone = [features_of(name) for name in (first, second, first)]
    np.testing.assert_allclose(both, np.concatenate(alone), rtol=1e-5, atol=1e-6)


def test_a_grid_finer_by_a_whole_number_is_averaged(tmp_path: Path) -> None:
    """Averages of averages are those over the larger cell: nothing of the picture is left out."""
    coarse, fine = averaging_backbone(tmp_path, 16), averaging_backbone(tmp_path, 4)
    both = features_of(f"{coarse}+{fine}")
    np.testing.assert_allclose(both[3:], both[:3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("first", "second"), [(4, 16), (4, 8), (8, 12), (12, 8), (16, 12)])
def test_any_other_grid_is_interpolated_as_torch_does(tmp_path: Path, first: int, second: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is an extra: pip install --editable '.[fit]'")
    names = [averaging_backbone(tmp_path, cell) for cell in (first, second)]
    both, alone = features_of("+".join(names)), features_of(names[1])
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(alone[None]), size=both.shape[1:], mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(both[3:], expected[0].numpy(), atol=1e-5)


def test_stages_and_weights_of_several_timm_models_go_to_each_in_turn() -> None:
    choice = BackboneChoice("resnet18+filterbank+resnet34", "layer1,layer2+layer3", Path("a.pth+b.pth"))
    parts = [(part.names, part.stages, part.weights) for part in choice.parts]
    assert parts == [
        ("resnet18", "layer1,layer2", Path("a.pth")),
        ("filterbank", "", None),
        ("resnet34", "layer3", Path("b.pth")),
    ]


def test_a_joined_backbone_is_calibrated_and_verified(
    command: Callable[..., Outcome], good_folder: Path, tmp_path: Path
) -> None:
    names = f"filterbank+{averaging_backbone(tmp_path, 8)}"
    options = ["--backbone", names, "--size", "64", "--detector", "gaussian"]
    assert command("fit", good_folder, "--out", tmp_path / "out", *options).code == 0
    assert command("verify", tmp_path / "out").code == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mean_shift", MeanShift()),
        ("mean_shift:alpha=0.3,averaging=3,location=shared", MeanShift(0.3, 3, "shared")),
        ("mean_shift:pooling_order=inf,modes=2", MeanShift(pooling_order=float("inf"), modes=2)),
        ("padim:dimensions=50", Padim(50)),
        ("gaussian:components=npca,retained_variance=0.1", Gaussian("npca", 0.1)),
        ("patchcore:coreset=1,neighbours=5", PatchCore(1.0, 5)),
    ],
)
def test_a_detector_is_described_in_one_word(text: str, expected: object) -> None:
    found = parse_detector(text)
    assert found == expected
    assert repr(found) == repr(expected)  # 5 is not 5.0


@pytest.mark.parametrize(
    ("text", "what", "remedy"),
    [
        ("mean", "'mean' is not known", "one of mean_shift, hotelling, padim"),
        ("padim:alpha=1", "--detector padim has no option 'alpha'", "padim:OPTION=VALUE,... with dimensions"),
        ("padim:dimensions", "--detector padim:dimensions '' is not understood", "a number"),
        ("padim:dimensions=2.5", "2.5 is not whole", "a whole number"),
        ("mean_shift:location=here", "'here' is not known", "local, shared or global"),
        ("mean_shift:alpha=2", "outside", "share"),
        ("mean_shift:modes=inf", "inf is not whole", "a whole number"),
    ],
)
def test_a_detector_that_is_described_wrongly_is_refused(text: str, what: str, remedy: str) -> None:
    with pytest.raises(SettingError, match=what) as refused:
        parse_detector(text)
    assert remedy in refused.value.remedy


def test_stages_and_weights_are_those_of_all_timm_models_or_of_each_in_turn() -> None:
    names, normalisation = ["small", "filterbank", "filterbank+large", "head.onnx"], (NOTHING, ONE)
    one, two = Path("one.safetensors"), Path("two.safetensors")

    def of(stages: list[str], weights: list[Path]) -> list[tuple[str, Path | None]]:
        chosen = backbone_choices(names, stages, weights, normalisation)
        assert [(choice.names, choice.mean, choice.std) for choice in chosen] == [
            (name, NOTHING, ONE) for name in names
        ]
        return [(choice.stages, choice.weights) for choice in chosen]

    none = ("", None)
    assert of(["a,b"], []) == [("a,b", None), none, ("a,b", None), none]
    assert of(["a", "b"], [one, two]) == [("a", one), none, ("b", two), none]
    assert of([], []) == [none] * 4
    for stages, weights, what in ((["a", "b", "c"], [], "3 --stages for 2"), ([], [one] * 3, "3 --weights for 2")):
        with pytest.raises(SettingError, match=what):
            of(stages, weights)
    with pytest.raises(SettingError, match="1 --stages for 0 backbones from timm"):
        backbone_choices(["filterbank"], ["a"], [], normalisation)


def test_auto_may_choose_parts_and_single_stages_of_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def noted(choice: BackboneChoice, _size: tuple[int, int]) -> Backbone:
        asked.append((choice.names, choice.stages))
        return Backbone((), choice.names)

    monkeypatch.setattr("calibration.workstation.fit.backbone_choice.open_backbone", noted)
    tuning_candidates(BackboneChoice("resnet18+filterbank", "layer2,layer3", None, NOTHING, ONE), (SIDE, SIDE))
    assert asked == [
        ("resnet18+filterbank", "layer2,layer3"),
        ("resnet18", "layer2,layer3"),
        ("filterbank", ""),
        ("resnet18", "layer2"),
        ("resnet18", "layer3"),
    ]
    asked.clear()
    tuning_candidates(BackboneChoice("filterbank", "", None, NOTHING, ONE), (SIDE, SIDE))
    assert asked == [("filterbank", "")]
