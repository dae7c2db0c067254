from __future__ import annotations

import importlib
import importlib.util
import logging
import platform
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from calibration.deployment import backends as backends_module
from calibration.deployment.backends import (
    BACKENDS,
    Backend,
    BackendChoice,
    Deployment,
    OpenEngine,
    choose_backend,
    open_engine,
)
from calibration.engine.cuda_driver import CudaDriver
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import EngineError, ScoreMismatchError
from tests.support.fake_gpu import DESKTOP, ORIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Engine, Inference
    from calibration.engine.cuda_driver import Gpu
    from calibration.imaging.preprocess import Image

NO_DRIVER = "no CUDA driver: libcuda.so.1 not found"
DEPLOYMENT = Deployment(cast("Bundle", SimpleNamespace(network=Path("network.onnx"))), 1, Path, lambda *_: None)


class FakeEngine:
    """Remembers whether it was entered and left."""

    tolerance = 0.0

    def __init__(self, backend: str, *, loads: bool = True) -> None:
        self.backend = backend
        self.log: list[str] = []
        self._loads = loads

    def __enter__(self) -> Self:
        self.log.append("entered")
        if not self._loads:
            raise EngineError(what=f"{self.backend} cannot build the network", remedy="repair it")
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append("left")

    def __call__(self, frame: Image) -> Inference:
        raise NotImplementedError


def backend(engine: FakeEngine, missing: str | None = None) -> Backend:
    def require() -> None:
        if missing is not None:
            raise EngineError(what=missing, remedy="install it")

    return Backend(require, lambda _: engine)


def served(
    name: str, backends: Mapping[str, Backend], check: Callable[[Engine], object] = lambda _: None
) -> OpenEngine:
    with open_engine(choose_backend(name, backends), DEPLOYMENT, check, backends) as result:
        return result


def refusing(*names: str) -> Callable[[Engine], None]:
    """Golden frames that these backends score wrongly."""

    def check(engine: Engine) -> None:
        if engine.backend in names:
            raise ScoreMismatchError(what=f"{engine.backend} scores golden frame 0 wrongly", remedy="update it")

    return check


def test_auto_opens_the_best_available_backend_and_says_why_not_a_better_one() -> None:
    engines = {name: FakeEngine(name) for name in ("fast", "medium", "slow")}
    backends = {
        "fast": backend(engines["fast"], missing="fast is not installed"),
        "medium": backend(engines["medium"]),
        "slow": backend(engines["slow"], missing="never reached"),
    }
    assert choose_backend("auto", backends).reason == "fast is not installed"
    result = served("auto", backends)
    assert (result.engine, result.reason) == (engines["medium"], "fast is not installed")
    assert engines["medium"].log == ["entered", "left"]
    assert engines["fast"].log == engines["slow"].log == []


def test_a_reason_shared_by_several_backends_is_given_once() -> None:
    backends = {
        "fast": backend(FakeEngine("fast"), missing=NO_DRIVER),
        "medium": backend(FakeEngine("medium"), missing=NO_DRIVER),
        "slow": backend(FakeEngine("slow")),
    }
    assert choose_backend("auto", backends).reason == served("auto", backends).reason == NO_DRIVER


def test_the_best_backend_of_all_needs_no_reason() -> None:
    assert served("auto", {"fast": backend(FakeEngine("fast"))}).reason == "the best there is"


def test_auto_logs_an_engine_that_does_not_build_and_tries_the_next(caplog: pytest.LogCaptureFixture) -> None:
    fast, slow = FakeEngine("fast", loads=False), FakeEngine("slow")
    backends = {"fast": backend(fast), "slow": backend(slow)}
    with caplog.at_level(logging.WARNING):
        result = served("auto", backends)
    assert (result.engine, result.reason) == (slow, "fast cannot build the network")
    assert "the backend fast cannot be used: fast cannot build the network" in caplog.text


def test_auto_closes_an_engine_with_wrong_scores_before_it_tries_the_next() -> None:
    fast, slow = FakeEngine("fast"), FakeEngine("slow")
    backends = {"fast": backend(fast), "slow": backend(slow)}
    with open_engine(choose_backend("auto", backends), DEPLOYMENT, refusing("fast"), backends) as result:
        assert (fast.log, slow.log) == (["entered", "left"], ["entered"])
    assert (result.engine, result.reason) == (slow, "fast scores golden frame 0 wrongly")
    assert slow.log == ["entered", "left"]


def test_it_is_an_error_if_the_last_engine_fails() -> None:
    backends = {"fast": backend(FakeEngine("fast", loads=False)), "slow": backend(FakeEngine("slow"))}
    with pytest.raises(ScoreMismatchError, match="slow scores"):
        served("auto", backends, refusing("slow"))


def test_a_named_backend_that_is_missing_is_refused_before_anything_is_tried() -> None:
    backends = {"fast": backend(FakeEngine("fast"), missing=NO_DRIVER), "slow": backend(FakeEngine("slow"))}
    with pytest.raises(EngineError) as refusal:
        choose_backend("fast", backends)
    assert refusal.value.what == f"the backend fast cannot run here: {NO_DRIVER}"
    assert refusal.value.remedy == "install it; or let the agent choose, with engine.backend: auto"


def test_a_named_backend_that_fails_is_an_error_and_no_other_is_tried() -> None:
    slow = FakeEngine("slow")
    backends = {"fast": backend(FakeEngine("fast", loads=False)), "slow": backend(slow)}
    with pytest.raises(EngineError, match="fast cannot build"):
        served("fast", backends)
    backends["fast"] = backend(FakeEngine("fast"))
    with pytest.raises(ScoreMismatchError, match="fast scores"):
        served("fast", backends, refusing("fast"))
    assert slow.log == []
    assert served("fast", backends).reason == "named in the configuration"


def test_an_error_while_it_serves_reaches_the_caller_and_no_other_engine_is_tried() -> None:
    fast, slow = FakeEngine("fast"), FakeEngine("slow")
    backends = {"fast": backend(fast), "slow": backend(slow)}

    def fail() -> None:
        with open_engine(choose_backend("auto", backends), DEPLOYMENT, lambda _: None, backends):
            raise EngineError(what="out of memory", remedy="find some")

    with pytest.raises(EngineError, match="out of memory"):
        fail()
    assert (fast.log, slow.log) == (["entered", "left"], [])


@pytest.fixture
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends_module, "cuda_driver", lambda: None)


@pytest.mark.parametrize(
    ("absent", "what"),
    [
        ({"tensorrt"}, "the Python package tensorrt is not installed"),
        ({"pycuda", "cuda.bindings"}, "neither of the Python packages pycuda and cuda-bindings is installed"),
        ({"pycuda"}, None),
        ({"cuda.bindings"}, None),
    ],
)
def test_tensorrt_needs_its_python_package_and_one_for_cuda(
    monkeypatch: pytest.MonkeyPatch, absent: set[str], what: str | None
) -> None:
    monkeypatch.setattr(backends_module, "cuda_driver", lambda: CudaDriver((12, 8), (ORIN,)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else object())
    assert choose_backend("auto").obstacles["tensorrt"] == what


@pytest.mark.parametrize(
    ("gpu", "machine", "why"),
    [
        (DESKTOP, "x86_64", None),
        (replace(DESKTOP, compute_capability="12.1"), "x86_64", None),
        (replace(DESKTOP, compute_capability="7.5"), "x86_64", "compute capability 7.5, which is Turing"),
        (
            replace(DESKTOP, compute_capability="9.0"),
            "x86_64",
            "9.0, which is a GPU for data centres",
        ),
        (replace(DESKTOP, compute_capability="13.0"), "x86_64", "13.0; it can for 8.0, 8.6, 8.9, 12.0, 12.1"),
        (DESKTOP, "aarch64", "graphics cards in x86-64 PCs; this is NVIDIA RTX 4000 (aarch64)"),
        (ORIN, "x86_64", "graphics cards in x86-64 PCs; this is Orin (x86_64)"),
    ],
)
def test_tensorrt_for_rtx_comes_after_tensorrt_on_the_gpus_that_it_knows(
    monkeypatch: pytest.MonkeyPatch, gpu: Gpu, machine: str, why: str | None
) -> None:
    monkeypatch.setattr(backends_module, "cuda_driver", lambda: CudaDriver((12, 8), (gpu,)))
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorrt" else object())
    choice = choose_backend("auto")
    assert list(choice.obstacles)[:3] == ["tensorrt", "tensorrt_rtx", "cuda"]
    assert choice.obstacles["tensorrt"] == "the Python package tensorrt is not installed"
    found = choice.obstacles["tensorrt_rtx"]
    assert found is None if why is None else why in str(found)
    assert choice.belongs_to_thread == (why is None)
    if why is None:
        assert choice.reason == "the Python package tensorrt is not installed"


@pytest.mark.usefixtures("_gpu")
def test_cuda_needs_an_onnx_runtime_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match=r"cuda cannot run here: this ONNX Runtime .* has no CUDA provider"):
        choose_backend("cuda")
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert choose_backend("cuda") == BackendChoice({"cuda": None}, named=True)


def test_onnxruntime_on_the_cpu_is_always_there() -> None:
    assert choose_backend("auto").available[-1] == "onnxruntime"
    assert BACKENDS["onnxruntime"].open(DEPLOYMENT).backend == "onnxruntime-cpu"
    assert BACKENDS["cuda"].open(DEPLOYMENT).backend == "onnxruntime-cuda"


def test_a_cuda_provider_that_quietly_became_the_cpu_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 4, 4, 3])
    out = helper.make_tensor_value_info("features", TensorProto.UINT8, [1, 4, 4, 3])
    graph = helper.make_graph([helper.make_node("Identity", ["frame"], ["features"])], "g", [frame], [out])
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    session = ort.InferenceSession
    asked: list[Any] = []

    def on_the_cpu(network: bytes, options: Any, *, providers: list[Any], enable_fallback: int) -> Any:  # noqa: ANN401
        asked.extend([providers[0][0], enable_fallback])
        return session(network, options, providers=["CPUExecutionProvider"])

    with OnnxRuntimeEngine(network, 1) as engine:
        assert engine.backend == "onnxruntime-cpu"
    monkeypatch.setattr(ort, "InferenceSession", on_the_cpu)
    with (
        pytest.raises(EngineError, match="cannot use CUDA and uses CPUExecutionProvider instead"),
        OnnxRuntimeEngine(network, 1, "cuda"),
    ):
        pass
    assert asked == ["CUDAExecutionProvider", 0]


def test_a_gpu_that_does_not_work_is_an_error_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        message = "CUDA failure 35: driver is too old\nsomewhere in C++"
        raise RuntimeError(message)

    monkeypatch.setattr(ort, "InferenceSession", fail)
    with pytest.raises(EngineError) as refusal, OnnxRuntimeEngine(b"", 1, "cuda"):
        pass
    assert refusal.value.what.endswith("cannot load the network: CUDA failure 35: driver is too old")
