"""What of our code works on NVIDIA's bindings alone, without TensorRT: logger, monitor, weights, types, refusals.

Run as a program, in a process of its own for each version: ``tensorrt_objects.py WHEEL STUBS``; silent if all is well.
"""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Event

import numpy as np

from calibration.engine.tensorrt_build import Phases, _monitor
from calibration.engine.tensorrt_library import TENSORRT, process_journal
from calibration.errors import EngineError
from tests.support.tensorrt_names import load


def main() -> None:
    """Use each once."""
    bindings = load(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.modules["tensorrt"] = bindings
    assert TENSORRT.imported() is bindings

    journal = process_journal(TENSORRT)
    assert isinstance(journal.logger, bindings.ILogger)
    severity = bindings.ILogger.Severity
    for level in (severity.INTERNAL_ERROR, severity.ERROR, severity.INFO, severity.VERBOSE):
        journal.logger.log(level, str(level))
    assert list(journal.errors) == [str(severity.INTERNAL_ERROR), str(severity.ERROR)]

    told: list[tuple[str, int, int]] = []
    cancel = Event()
    monitor = _monitor(bindings, Phases(lambda *step: told.append(step), cancel))
    assert isinstance(monitor, bindings.IProgressMonitor)
    monitor.phase_start("phase", None, 2)
    assert monitor.step_complete("phase", 0) is True
    cancel.set()
    assert monitor.step_complete("phase", 1) is False
    monitor.phase_finish("phase")
    assert told == [("phase", 0, 2), ("phase", 1, 2), ("phase", 2, 2), ("phase", 2, 2)]

    weights = bindings.Weights(np.ones((2, 3), np.float32))
    assert weights.size == 6
    assert np.dtype(bindings.nptype(bindings.DataType.UINT8)) == np.uint8
    assert np.dtype(bindings.nptype(bindings.DataType.FLOAT)) == np.float32
    assert 1 << int(bindings.NetworkDefinitionCreationFlag.STRONGLY_TYPED) in {1, 2}

    # The stubs give nothing, as a library without a driver may: a clear error, not a TypeError.
    try:
        with journal.explained(what="cannot begin", remedy="repair it"):
            bindings.Builder(journal.logger)
    except EngineError as error:
        assert error.what.startswith("cannot begin: "), error.what  # noqa: PT017 - no pytest in this process
    else:
        raise AssertionError


if __name__ == "__main__":
    main()
