"""Child processes: messages, memory, priority, and how they end. Cameras, page, worker and probes have more."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.child_process import ChildProcess, ChildProgram
from agent.errors import CameraError
from tests.support.stations import until

if TYPE_CHECKING:
    import socket
    from typing import NoReturn

PATIENCE_S = 30.0
AUTOGROUP = Path("/proc/self/autogroup")
PROGRAM = ChildProgram(module=__name__, failure=CameraError, remedy="look")


def main(order: Any, to_parent: socket.socket, *descriptors: int) -> None:  # noqa: ANN401 - JSON
    """The program of the children here: the order names what they do."""
    globals()[order](to_parent, *descriptors)


def echo(to_parent: socket.socket, memory: int) -> None:
    sys.stdout.write("libraries print\n")
    shared = mmap.mmap(memory, 0)
    while message := to_parent.recv(100):
        shared[: len(message)] = message
        to_parent.sendall(message.upper())


def report_priority(to_parent: socket.socket) -> None:
    oom_score = Path("/proc/self/oom_score_adj").read_text().strip()
    group = AUTOGROUP.read_text().split()[-1] if AUTOGROUP.exists() else "19"  # not every Linux has them
    to_parent.sendall(f"{group} {os.nice(0)} {os.sched_getscheduler(0) == os.SCHED_BATCH} {oom_score}".encode())


def end_with_3(to_parent: socket.socket) -> NoReturn:
    to_parent.sendall(b"last")
    sys.exit(3)


def fail(_: socket.socket) -> NoReturn:
    raise ValueError("\n2026-11-28 00:00:00,000 INFO    command threshold by chief\x1b[2J\udcff")  # noqa: EM101, TRY003


def sleep(_: socket.socket) -> None:
    signal.pause()


def announce(to_parent: socket.socket) -> None:
    to_parent.sendall(b"here")
    signal.pause()


def child(order: str, program: ChildProgram = PROGRAM) -> ChildProcess:
    return ChildProcess(program, "the child", order)


@pytest.mark.slow
def test_messages_arrive_in_both_directions_and_the_memory_is_shared() -> None:
    with child("echo", replace(PROGRAM, memory_bytes=4096)) as process:
        for message in (b"one", b"other"):
            assert process.send(message)
            assert process.receive(PATIENCE_S) == message.upper()
            assert process.memory[: len(message)] == message
        assert process.receive(0.01) is None


def test_a_child_that_does_not_read_does_not_hold_up_the_sender() -> None:
    with child("sleep") as process:
        until(lambda: not process.send(bytes(10_000)))


@pytest.mark.slow
def test_an_expendable_child_has_the_lowest_priority_and_dies_first_when_memory_runs_out() -> None:
    with child("report_priority", replace(PROGRAM, niceness=19, is_expendable=True)) as process:
        assert process.receive(PATIENCE_S) == b"19 19 True 1000"


@pytest.mark.slow
def test_the_end_of_a_child_is_an_error_after_its_last_message() -> None:
    with child("end_with_3") as process:
        assert process.receive(PATIENCE_S) == b"last"
        with pytest.raises(CameraError, match=r"(?s)the child ended with exit code 3.*look"):
            process.receive(PATIENCE_S)
    with child("sleep") as process:
        process.kill()
        with pytest.raises(CameraError, match="the child was killed by SIGKILL"):
            process.receive(PATIENCE_S)


@pytest.mark.slow
def test_what_a_child_prints_when_it_crashes_cannot_pass_for_a_line_of_the_log() -> None:
    with (
        tempfile.TemporaryFile() as log,
        ChildProcess(PROGRAM, "the child", "fail", log=log.fileno()) as process,
    ):
        with pytest.raises(CameraError, match="exit code 1"):
            process.receive(PATIENCE_S)
        log.seek(0)
        printed = log.read().decode()
    assert r"by chief\x1b[2J\udcff" in printed
    assert all(line.startswith("  ") and line.isprintable() for line in printed.splitlines())


@pytest.mark.slow
def test_a_child_dies_with_the_thread_that_started_it() -> None:
    process = child("announce")

    def start() -> None:
        process.__enter__()
        assert process.receive(PATIENCE_S) == b"here"

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    with pytest.raises(CameraError, match="was killed by SIGKILL"):
        process.receive(PATIENCE_S)
    process.__exit__()
