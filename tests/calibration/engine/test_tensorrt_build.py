"""A build is set up alike for every TensorRT from 10.3, tells how far it is, can be stopped, and explains failures.

What needs a GPU is tested on a fake, all else on NVIDIA's own library.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from calibration.detectors.mean_shift import MeanShift
from calibration.engine.tensorrt import TensorRTEngine
from calibration.engine.tensorrt_build import BuildOptions, Built, Phases, _build_error, _mark_head_refittable, build
from calibration.engine.tensorrt_kept import Source
from calibration.engine.tensorrt_library import TENSORRT, TENSORRT_RTX, process_journal
from calibration.errors import EngineError
from calibration.onnx_graph import FLOAT, copied
from tests.support import fake_tensorrt
from tests.support.levels import two_levels
from tests.support.networks import network_of
from tests.support.real_tensorrt import Parsed, rtx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Opener = Callable[..., TensorRTEngine]


@pytest.mark.parametrize("library", [TENSORRT], indirect=True)
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


@pytest.mark.parametrize("library", [TENSORRT], indirect=True)
def test_an_engine_whose_head_cannot_be_marked_still_scores(
    engine: Opener,
    world: Any,  # noqa: ANN401
    caplog: pytest.LogCaptureFixture,
) -> None:
    world.refuse = {"mark"}
    with engine():
        assert world.builds[0]._flags == set()
    assert "cannot replace head.mean, head.whitening" in caplog.text


def test_nvidias_library_marks_the_weights_of_the_head_and_no_others(network: onnx.ModelProto) -> None:
    parsed, trt = Parsed(network), rtx()
    config = parsed.builder.create_builder_config()
    _mark_head_refittable(trt, parsed.definition, config, network.SerializeToString())
    assert config.get_flag(trt.BuilderFlag.REFIT_INDIVIDUAL)
    names = [tensor.name for tensor in network.graph.initializer]
    marked = [name for name in names if parsed.definition.are_weights_marked_refittable(name)]
    assert marked == ["head.mean", "head.whitening"]


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


class Building:
    """A build by NVIDIA's own library, and what happens while it runs.

    Attributes:
        seen: The steps reported so far.
    """

    def __init__(self, network: bytes) -> None:
        rtx()
        self._network = network
        self.seen: list[tuple[str, int, int]] = []

    def run(self, during: Callable[[], object] = lambda: None, cancel: threading.Event | None = None) -> Built:
        """Build, and call something at each step."""

        def progress(*step: Any) -> None:  # noqa: ANN401
            self.seen.append(step)
            during()

        return build(TENSORRT_RTX, self._network, BuildOptions(), b"", progress, cancel or threading.Event())


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    return network_of(two_levels(), MeanShift(location="shared"))


@pytest.fixture
def building(network: onnx.ModelProto) -> Building:
    return Building(network.SerializeToString())


def test_progress_covers_the_first_two_levels_of_phases(building: Building) -> None:
    assert building.run().plan
    phases = list(dict.fromkeys(phase for phase, _, _ in building.seen))
    assert phases[0] == "Building engine"
    assert len(phases) > 3
    for phase in phases:
        (total,) = {total for name, _, total in building.seen if name == phase}
        done = [done for name, done, _ in building.seen if name == phase]
        assert (done[0], done[-1]) == (0, total)
        assert done == sorted(done)


def test_a_build_can_be_cancelled_while_it_runs(building: Building) -> None:
    whole = Building(building._network)
    whole.run()
    cancel = threading.Event()
    with pytest.raises(EngineError, match="was cancelled"):
        building.run(cancel.set, cancel)
    assert len(building.seen) < len(whole.seen) / 2


@pytest.fixture
def control_c() -> Iterator[None]:
    """A shell that starts something in the background has it ignore Ctrl-C; here it must be heard."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_once() -> Callable[[], None]:
    """Ctrl-C at the first call, which returns when the signal was handled."""
    pressed = threading.Event()

    def press() -> None:
        if not pressed.is_set():
            pressed.set()
            os.kill(os.getpid(), signal.SIGINT)

    return press


@pytest.mark.usefixtures("control_c")
def test_control_c_stops_a_build_and_is_passed_on_when_the_builder_has_stopped(building: Building) -> None:
    cancel = threading.Event()
    press = press_once()

    def press_and_wait() -> None:
        press()
        cancel.wait(30)  # for the signal to arrive in the main thread

    with pytest.raises(KeyboardInterrupt):
        building.run(press_and_wait, cancel)
    assert cancel.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tensorrt-build")]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_program_that_handles_control_c_itself_stops_the_build_through_its_own_event(building: Building) -> None:
    cancel = threading.Event()
    press = press_once()
    before = signal.signal(signal.SIGINT, lambda *_: cancel.set())
    try:
        with pytest.raises(EngineError, match="was cancelled"):
            building.run(lambda: (press(), cancel.wait(30)), cancel)
    finally:
        signal.signal(signal.SIGINT, before)


def unreadable(network: onnx.ModelProto) -> bytes:
    """With five nodes that NVIDIA's parser does not read."""
    changed = copied(network)
    for number in range(5):
        changed.graph.node.append(helper.make_node("Det", ["map"], [f"d{number}"], f"n{number}"))
        changed.graph.output.append(helper.make_tensor_value_info(f"d{number}", FLOAT, (1,)))
    return changed.SerializeToString()


def test_a_network_that_cannot_be_read_gives_one_readable_error(network: onnx.ModelProto) -> None:
    with pytest.raises(EngineError) as raised:
        Building(unreadable(network)).run()
    nodes = "; ".join(rf"node n{number} \(Det\): UNSUPPORTED_NODE, \w+" for number in range(3))
    assert re.fullmatch(rf"TensorRT for RTX [\d.]+ cannot read the network: {nodes}; and 2 more", raised.value.what)


def test_what_is_no_network_gives_one_readable_error() -> None:
    with pytest.raises(EngineError) as raised:
        Building(b"no network").run()
    assert re.search(
        r"cannot read the network: MODEL_DESERIALIZE_FAILED, .*Failed to parse the ONNX", raised.value.what
    )


def test_a_refused_build_leaves_the_gpu_and_keeps_no_engine(
    network: onnx.ModelProto,
    cuda: Any,  # noqa: ANN401 - a fake GPU
    tmp_path: Path,
) -> None:
    rtx()
    refused = Source.of(unreadable(network))
    with pytest.raises(EngineError, match="cannot read the network"):
        TensorRTEngine(refused, tmp_path / "e", library=TENSORRT_RTX, cuda=lambda: cuda).__enter__()
    assert cuda.events[-1] == "left"
    assert not (tmp_path / "e" / "engine.json").exists()


@pytest.mark.parametrize(
    "said",
    [
        "Error Code 10: Internal Error (Could not find any implementation for node {ForeignNode[head.mean...score]}.)",
        "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
        "Requested amount of GPU memory could not be allocated: OutOfMemory",
    ],
)
def test_too_little_memory_is_recognised_and_the_levers_are_named(said: str) -> None:
    severity = rtx().ILogger.Severity
    journal = process_journal(TENSORRT_RTX)
    journal.errors.clear()
    for message in (said, "buildSerializedNetwork: Error Code 4: see above"):
        journal.logger.log(severity.ERROR, message)
    error = _build_error(journal, BuildOptions(), threading.Event())
    assert "ran out of memory while building (workspace 1024 MiB, tactics 2048 MiB)" in error.what
    for lever in ("--workspace-mib", "--tactic-memory-mib", "--optimisation-level", "close other programs"):
        assert lever in error.remedy


def too_large(network: onnx.ModelProto) -> bytes:
    """It can be read, but not built: its map is repeated too often."""
    changed = copied(network)
    changed.graph.initializer.append(numpy_helper.from_array(np.array([1, 10**7, 10**7]), "times"))
    changed.graph.node.append(helper.make_node("Tile", ["map", "times"], ["maps"], "repeated"))
    changed.graph.output.append(helper.make_tensor_value_info("maps", FLOAT, None))
    return changed.SerializeToString()


def test_any_other_failure_quotes_the_librarys_message_and_not_that_of_an_earlier_build(
    network: onnx.ModelProto, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(EngineError, match="cannot read"):
        Building(unreadable(network)).run()
    caplog.clear()
    with pytest.raises(EngineError) as error:
        Building(too_large(network)).run()
    assert re.search(
        r"TensorRT for RTX [\d.]+ cannot build the engine \(TensorRT for RTX says: .*maps has \d+ elements",
        error.value.what,
    )
    assert "elements which exceeds" in caplog.text
    with pytest.raises(EngineError, match=r"cannot build the engine \(TensorRT for RTX says: .*at least one output"):
        Building(b"").run()


def test_a_builder_that_cannot_be_made_is_a_clear_error(building: Building, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoBuilder:
        def __init__(self, _logger: object) -> None:
            message = "pybind11::init(): factory function returned nullptr"
            raise TypeError(message)

    monkeypatch.setattr(rtx(), "Builder", NoBuilder)
    with pytest.raises(EngineError, match="cannot start to build: pybind11"):
        building.run()
