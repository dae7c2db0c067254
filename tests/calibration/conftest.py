"""Washers, good and scratched, and what was learnt from them once for all tests."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from calibration.backbones.backbone import filterbank_backbone
from calibration.bundle.bundle import Bundle, open_bundle
from calibration.deployment.engine_source import source_of
from calibration.engine.tensorrt import TensorRTEngine
from calibration.engine.tensorrt_library import LIBRARIES
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.cli.main import main
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.support import fake_tensorrt, fake_tensorrt_rtx
from tests.support.fake_gpu import FakeCuda
from tests.support.outcome import Outcome
from tests.support.washers import SIDE, Drawn, save, washer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from calibration.backbones.backbone import Backbone
    from calibration.engine.tensorrt_library import Library
    from calibration.imaging.preprocess import Image


@pytest.fixture(scope="session")
def good_washers() -> list[Image]:
    """Pictures of 24 good washers."""
    return [washer(number) for number in range(24)]


@pytest.fixture(scope="session")
def small_filterbank() -> Backbone:
    return filterbank_backbone(SIDE, SIDE)


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory, good_washers: list[Image], small_filterbank: Backbone) -> Bundle:
    """A bundle that no test may change."""
    path = tmp_path_factory.mktemp("learnt") / "washers"
    settings = Settings(Preprocess(SIDE, SIDE), threads=1)
    return calibrate(Drawn(good_washers), small_filterbank, settings, path, lambda *_: None)


@pytest.fixture
def bundle(learnt: Bundle, tmp_path: Path) -> Bundle:
    """A copy that a test may damage."""
    return open_bundle(shutil.copytree(learnt.path, tmp_path / "washers"))


@pytest.fixture(scope="session")
def good_folder(tmp_path_factory: pytest.TempPathFactory, good_washers: list[Image]) -> Path:
    """Good washers as files."""
    return save(tmp_path_factory.mktemp("pictures") / "good", good_washers)


@pytest.fixture(scope="session")
def labelled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight good and eight scratched washers that calibration has not seen."""
    folder = tmp_path_factory.mktemp("labelled")
    save(folder / "good", [washer(number) for number in range(100, 108)])
    save(folder / "scratch", [washer(number, scratched=True) for number in range(200, 208)])
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs ``shiftwatch-calibrate`` as its console script does."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["shiftwatch-calibrate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return Outcome(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def cuda() -> FakeCuda:
    """A GPU that is none."""
    return FakeCuda()


@pytest.fixture(params=LIBRARIES, ids=lambda library: library.backend)
def library(request: pytest.FixtureRequest) -> Library:
    """TensorRT, and TensorRT for RTX."""
    found: Library = request.param
    return found


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda, library: Library) -> Any:  # noqa: ANN401
    """The library on it."""
    fake = fake_tensorrt_rtx if library.builds_ahead else fake_tensorrt
    return fake.install(monkeypatch, cuda)


@pytest.fixture
def engine(
    learnt: Bundle,
    world: Any,  # noqa: ANN401, ARG001
    cuda: FakeCuda,
    library: Library,
    tmp_path: Path,
) -> Callable[..., TensorRTEngine]:
    """Makes engines of the washers' network."""
    defaults = {"source": source_of(learnt), "folder": tmp_path / "e", "cuda": lambda: cuda, "library": library}

    def make(**changes: Any) -> TensorRTEngine:  # noqa: ANN401
        return TensorRTEngine(**{**defaults, **changes})

    return make
