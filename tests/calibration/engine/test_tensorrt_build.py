"""A build is set up alike for every TensorRT from 10.3, tells how far it is, can be stopped, and explains failures."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from calibration.engine.tensorrt_build import BuildOptions, Phases
from calibration.errors import EngineError
from tests.support import fake_tensorrt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from calibration.engine.tensorrt import TensorRTEngine
    from tests.support.fake_gpu import FakeCuda

    Opener = Callable[..., TensorRTEngine]


def test_the_engine_keeps_the_graphs_precision_and_only_the_head_can_be_replaced(
    engine: Opener,
    world: Any,  # noqa: ANN401
) -> None:
    with engine(options=BuildOptions(workspace_mib=512, tactic_memory_mib=768, optimisation_level=5)):
        pass
    (config,) = world.builds
    assert config._flags == {fake_tensorrt.BuilderFlag.REFIT_INDIVIDUAL}  # and TF32 is off
    assert config._pools == {
        fake_tensorrt.MemoryPoolType.WORKSPACE: 512 << 20,
        fake_tensorrt.MemoryPoolType.TACTIC_DRAM: 768 << 20,
    }
    assert config.builder_optimization_level == 5
    assert config._marked == ("head.mean", "head.whitening")


def test_an_engine_whose_head_cannot_be_marked_still_scores(
    engine: Opener,
    world: Any,  # noqa: ANN401
    caplog: pytest.LogCaptureFixture,
) -> None:
    world.refuse = {"mark"}
    with engine():
        assert world.builds[0]._flags == set()
    assert "cannot replace head.mean, head.whitening" in caplog.text


def test_progress_covers_the_first_two_levels_of_phases(engine: Opener, world: Any) -> None:  # noqa: ANN401, ARG001
    told: list[tuple[str, int, int]] = []
    with engine(progress=lambda *step: told.append(step)):
        pass
    assert told == [
        ("Building", 0, 3),
        ("Timing", 0, 1),
        ("Timing", 1, 1),
        *(("Building", done, 3) for done in (1, 2, 3, 3)),
    ]


def test_phases_may_come_from_many_threads_at_once() -> None:
    told: list[tuple[str, int, int]] = []
    phases = Phases(lambda *step: told.append(step), threading.Event())
    phases.start("root", None, 400)
    threads = [
        threading.Thread(target=lambda first=first: [phases.step("root", step) for step in range(first, 400, 4)])
        for first in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 401
    phases.finish("root")
    assert phases.step("root", 1)  # a step that comes late is no error
    assert told[-1] == ("root", 400, 400)


def test_a_build_can_be_cancelled_from_another_thread(
    engine: Opener,
    world: Any,  # noqa: ANN401
    cuda: FakeCuda,
    tmp_path: Path,
) -> None:
    cancel = threading.Event()
    world.steps, world.during_build = 10**6, cancel.set
    with pytest.raises(EngineError, match="was cancelled"):
        engine(cancel=cancel).__enter__()
    assert cuda.events[-1] == "left"
    assert not (tmp_path / "e" / "engine.json").exists()


@pytest.fixture
def control_c() -> Iterator[None]:
    """A shell that starts something in the background has it ignore Ctrl-C; here it must be heard."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("control_c")
def test_control_c_stops_a_build_and_is_passed_on_when_tensorrt_has_stopped(
    engine: Opener,
    world: Any,  # noqa: ANN401
    cuda: FakeCuda,
) -> None:
    steps: list[None] = []

    def press_once() -> None:
        steps.append(None)
        if len(steps) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    world.steps, world.during_build = 300_000, press_once
    with pytest.raises(KeyboardInterrupt):
        engine().__enter__()
    assert len(steps) < world.steps
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tensorrt-build")]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert cuda.events[-1] == "left"


def test_a_program_that_handles_control_c_itself_stops_the_build_through_its_own_event(
    engine: Opener,
    world: Any,  # noqa: ANN401
) -> None:
    cancel = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: cancel.set())
    try:
        world.steps, world.during_build = 300_000, lambda: os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(EngineError, match="was cancelled"):
            engine(cancel=cancel).__enter__()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("errors", "what"),
    [
        ((), "cannot read the network: no reason given"),
        ((("backbone/conv", "Conv", "kernel too large\n"),), r"node backbone/conv \(Conv\): kernel too large$"),
        ((("", "", "not an ONNX file"),), "cannot read the network: not an ONNX file$"),
        (
            tuple((f"n{number}", "Op", "no") for number in range(5)),
            r"node n0 \(Op\): no; node n1 \(Op\): no; node n2 \(Op\): no; and 2 more$",
        ),
    ],
)
def test_a_network_that_cannot_be_read_gives_one_readable_error(
    engine: Opener,
    world: Any,  # noqa: ANN401
    errors: tuple[tuple[str, str, str], ...],
    what: str,
) -> None:
    world.parser_errors = errors
    with pytest.raises(EngineError) as raised:
        engine().__enter__()
    assert re.search(what, raised.value.what)
    assert "\n" not in raised.value.what
    assert world.cuda.events[-1] == "left"


@pytest.mark.parametrize(
    "said",
    [
        "Error Code 10: Internal Error (Could not find any implementation for node {ForeignNode[head.mean...score]}.)",
        "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
        "Requested amount of GPU memory could not be allocated: OutOfMemory",
    ],
)
def test_too_little_memory_is_recognised_and_the_levers_are_named(
    engine: Opener,
    world: Any,  # noqa: ANN401
    said: str,
) -> None:
    world.build_errors = (said, "buildSerializedNetwork: Error Code 4: see above")
    with pytest.raises(
        EngineError, match=r"ran out of memory while building \(workspace 1024 MiB, tactics 2048 MiB\)"
    ) as error:
        engine().__enter__()
    for lever in ("--workspace-mib", "--tactic-memory-mib", "--optimisation-level", "close other programs"):
        assert lever in error.value.remedy


def test_any_other_failure_quotes_tensorrts_message(
    engine: Opener,
    world: Any,  # noqa: ANN401
    caplog: pytest.LogCaptureFixture,
) -> None:
    world.build_errors = ("something first", "Assertion failed: rank > 1")
    with caplog.at_level(logging.ERROR), pytest.raises(EngineError) as error:
        engine().__enter__()
    assert error.value.what == ("TensorRT 10.3.0 cannot build the engine (TensorRT says: Assertion failed: rank > 1)")
    assert "something first" in caplog.text


def test_the_error_of_an_earlier_build_is_not_quoted_again(engine: Opener, world: Any) -> None:  # noqa: ANN401
    world.build_errors = ("out of memory",)
    with pytest.raises(EngineError, match="out of memory"):
        engine().__enter__()
    world.build_errors = ("Assertion failed",)
    with pytest.raises(EngineError, match=r"cannot build the engine \(TensorRT says: Assertion failed\)"):
        engine().__enter__()


def test_a_builder_that_cannot_be_made_is_a_clear_error(engine: Opener, world: Any, cuda: FakeCuda) -> None:  # noqa: ANN401
    world.refuse = {"builder"}
    with pytest.raises(EngineError, match="cannot start to build: pybind11"):
        engine().__enter__()
    assert cuda.events[-1] == "left"
