"""Cameras with every kind of fault, each in a real process: faults are noticed, logged, counted and survived."""

from __future__ import annotations

import itertools
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faulty_source import FAULTS, faulty_source, full_speed, processes_in

from agent.backoff import BackoffLimits
from agent.camera import process_camera
from agent.camera.camera_settings import CameraSettings
from agent.camera.child_handle import CaptureProcess
from agent.camera.newest_frame import NewestFrameCamera
from agent.camera.process_camera import ProcessCamera, Timeouts
from agent.camera.shared_frames import SLOTS
from agent.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from agent.camera import Frame
    from calibration.imaging.preprocess import Image

pytestmark = pytest.mark.waits

PATIENCE_S = 30.0
QUICK = BackoffLimits(first_retry_s=0.02, longest_retry_s=0.1)
TIMEOUTS = Timeouts(open_s=20.0, read_s=0.5)
SEQUENCES = 200 if os.environ.get("SHIFTWATCH_SOAK") == "full" else 60
AT_ONCE = 16
HARMLESS = ("resized",)
"""Without a size that was asked for."""


def faulty_camera(
    folder: Path,
    *lives: tuple[str, int],
    timeouts: Timeouts = TIMEOUTS,
    settings: CameraSettings = CameraSettings(),  # noqa: B008 - frozen
) -> ProcessCamera:
    arguments = {"journal": str(folder / "journal"), "lives": lives}
    return ProcessCamera("faulty", faulty_source, arguments, settings=settings, timeouts=timeouts, pace=QUICK)


class Loop(threading.Thread):
    """Takes what the camera gives, as the inspection does."""

    def __init__(self, capture: ProcessCamera) -> None:
        super().__init__(daemon=True)
        self.camera = NewestFrameCamera(capture)
        self.seqs: list[int] = []
        self.lives: list[int] = []
        self.silences_s: list[float] = []
        self.conditions: list[tuple[str, str]] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        last_s = time.monotonic()
        try:
            for frame in self.camera:
                now_s = time.monotonic()
                self.silences_s.append(now_s - last_s)
                last_s = now_s
                self.note(frame)
        except CameraError as error:
            self.failure = error

    def note(self, frame: Frame | None) -> None:
        condition = (self.camera.state, self.camera.reason)
        if [condition] != self.conditions[-1:]:
            self.conditions.append(condition)
        if frame is not None:
            self.seqs.append(frame.seq)
            self.lives.append(int(frame.image[0, 0, 0]))

    def __enter__(self) -> Self:
        self.camera.__enter__()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.camera.stop()
        self.join(PATIENCE_S)
        self.camera.__exit__()
        assert not self.is_alive()
        assert self.failure is None

    def sees_life(self, number: int) -> None:
        until(lambda: number in self.lives)

    def check_accounts(self) -> None:
        assert self.camera.captured == len(self.seqs) + sum(self.camera.dropped.values())
        assert self.seqs == sorted(set(self.seqs))
        assert all(seq < self.camera.captured for seq in self.seqs)


def until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.005)


def has_reason(camera: ProcessCamera, reason: str) -> bool:
    return camera.reason == reason


def is_there(process: int) -> bool:
    """Running or a zombie."""
    return Path(f"/proc/{process}").exists()


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


# One fault each


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("refused", "camera faulty does not open"),
        ("open_crashes", "the capture process of camera faulty was killed by SIGSEGV"),
        ("hangs", "camera faulty gives no frame within 0.5 s"),
        ("hangs_but_hears_sigterm", "camera faulty gives no frame within 0.5 s"),
        ("freezes", "camera faulty gives no frame within 0.5 s"),
        ("slows_down", "camera faulty gives no frame within 0.5 s"),
        ("undecodable", "camera faulty gives no frame that is whole and can be decoded within 0.5 s"),
        ("crashes", "the capture process of camera faulty was killed by SIGSEGV"),
        ("is_killed", "the capture process of camera faulty was killed by SIGKILL"),
        ("raises", "the capture process of camera faulty ended with exit code 1"),
        ("exits", "the capture process of camera faulty ended with exit code 0"),
        ("ends", "camera faulty has stopped giving frames"),
        ("floats", "camera faulty gives garbage: 12x16x3 values of type float64"),
        ("flat", "camera faulty gives garbage: 576 values of type uint8"),
        ("empty", "camera faulty gives garbage: 0x16x3 values of type uint8"),
        ("huge", "camera faulty gives garbage: 16384x8192x3 values of type uint8"),
    ],
)
def test_a_fault_is_logged_with_its_reason_and_so_is_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str, reason: str
) -> None:
    caplog.set_level(logging.INFO)
    capture = faulty_camera(tmp_path, (fault, 3))
    with Loop(capture) as loop:
        loop.sees_life(1)
        assert (capture.state, capture.reason) == ("running", "")
    loop.check_accounts()
    (warning,) = (text for text in messages(caplog, logging.WARNING) if "is lost" in text)
    assert warning.startswith(f"camera faulty is lost: {reason}")
    assert messages(caplog, logging.INFO)[-1] == "camera faulty is back"
    assert (capture.state, capture.reason, capture.left_behind) == ("closed", "", 0)
    assert not any(is_there(process) for process in processes_in(tmp_path / "journal"))


def test_a_camera_that_is_lost_for_long_is_logged_once_each_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lives = [("crashes", 3), ("refused", 0), ("raises", 0), ("refused", 0), ("is_killed", 0), ("ends", 0)]
    capture = faulty_camera(tmp_path, *lives)
    with Loop(capture) as loop:
        loop.sees_life(len(lives))
    loop.check_accounts()
    assert [text.splitlines()[0] for text in messages(caplog, logging.WARNING)] == [
        "camera faulty is lost: the capture process of camera faulty was killed by SIGSEGV"
    ]
    assert messages(caplog, logging.INFO) == ["camera faulty gives frames", "camera faulty is back"]


def test_a_camera_that_comes_and_goes_is_logged_until_it_is_lost_again_and_when_it_is_steady(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    lives = [("ends", 3)] * 6
    capture = faulty_camera(tmp_path, *lives)
    with Loop(capture) as loop:
        loop.sees_life(len(lives))
        monkeypatch.setattr(process_camera, "_STEADY_AFTER_S", 0.1)
        until(lambda: "is back" in messages(caplog, logging.INFO)[-1] and len(messages(caplog, logging.INFO)) == 3)
    assert [text.partition(":")[0] for text in messages(caplog, logging.WARNING)] == [
        "camera faulty is lost",
        "camera faulty is lost again, and logged only when it was steady for 30 s",
    ]
    assert messages(caplog, logging.INFO) == ["camera faulty gives frames", *["camera faulty is back"] * 2]


def test_the_reason_is_up_to_date_while_a_camera_is_lost(tmp_path: Path) -> None:
    capture = faulty_camera(tmp_path, ("hangs", 3), ("open_hangs", 0), timeouts=Timeouts(open_s=2.0, read_s=0.5))
    with Loop(capture) as loop:
        for reason in ("camera faulty gives no frame within 0.5 s", "camera faulty gives no frame within 2 s", ""):
            until(partial(has_reason, capture, reason))
        loop.sees_life(2)


def test_the_loop_gets_none_twice_a_second_while_there_is_no_frame(tmp_path: Path) -> None:
    with Loop(faulty_camera(tmp_path, ("hangs", 5), ("refused", 0), ("open_hangs", 0))) as loop:
        until(lambda: len(processes_in(tmp_path / "journal")) == 3)
        rounds = len(loop.silences_s)
        until(lambda: len(loop.silences_s) > rounds + 3)
    loop.check_accounts()
    assert sorted(loop.silences_s[rounds + 1 :])[1] < 1.0, "half a second, on a machine with time"


def test_a_frozen_image_is_still_a_frame(tmp_path: Path) -> None:
    capture = faulty_camera(tmp_path)  # the same picture, again and again
    with Loop(capture) as loop:
        until(lambda: len(loop.seqs) > 20)
    loop.check_accounts()
    assert loop.camera.captured > 20


def test_a_slow_camera_runs_if_it_is_allowed_to(tmp_path: Path) -> None:
    capture = faulty_camera(tmp_path, ("slows_down", 0), timeouts=Timeouts(open_s=20.0, read_s=20.0))
    with Loop(capture) as loop:
        until(lambda: len(loop.seqs) == 2)
        assert capture.state == "running"
    assert len(processes_in(tmp_path / "journal")) == 1


def test_frames_of_another_size_than_configured_are_dropped_and_reported(tmp_path: Path) -> None:
    settings = CameraSettings(width=16, height=12)
    capture = faulty_camera(tmp_path, ("resized", 3), settings=settings)
    with Loop(capture) as loop:
        until(lambda: capture.reason == "camera faulty gives frames of 16x11 pixels and none of 16x12 within 0.5 s")
        loop.sees_life(1)
    loop.check_accounts()
    assert loop.camera.dropped["wrong_size"] > 1


def test_any_size_is_taken_if_none_is_configured(tmp_path: Path) -> None:
    capture = faulty_camera(tmp_path, ("resized", 3))
    with Loop(capture) as loop:
        until(lambda: len(loop.seqs) > 10)
    assert "wrong_size" not in loop.camera.dropped


def test_a_camera_that_is_absent_at_the_start_is_lost_and_comes_later(tmp_path: Path) -> None:
    capture = faulty_camera(tmp_path, *[("refused", 0)] * 5)
    assert (capture.state, capture.reason) == ("closed", "")
    with Loop(capture) as loop:
        state_at_first = capture.state
        loop.sees_life(5)
        assert (state_at_first, capture.state) == ("lost", "running")
    assert loop.conditions[0][0] == "lost"


def test_every_frame_reported_by_a_process_that_dies_at_once_is_counted(tmp_path: Path) -> None:
    capture = faulty_camera(tmp_path, *[("is_killed", 3)] * 5)
    with Loop(capture) as loop:
        loop.sees_life(5)
    loop.check_accounts()
    # Each dying life has told three frames, whether or not the loop got them.
    with_frames_of_the_last = loop.camera.captured - 15
    assert with_frames_of_the_last >= 1
    assert loop.seqs[loop.lives.index(5)] >= 15


def test_reports_of_a_process_are_received_after_its_death(tmp_path: Path) -> None:
    arguments = {"journal": str(tmp_path / "journal"), "lives": [("hangs", 3)]}
    with CaptureProcess("faulty", faulty_source, arguments) as process:
        reports = [process.next_report(PATIENCE_S) for _ in range(2)]  # opened, and a frame
        until(lambda: is_hanging(processes_in(tmp_path / "journal")[0]))
        assert reports[1] is not None
        process.take(reports[1])  # its slot goes back, to one that will never read it
        os.kill(processes_in(tmp_path / "journal")[0], signal.SIGKILL)
        process._process.wait(PATIENCE_S)  # type: ignore[union-attr]
        reports += [process.next_report(PATIENCE_S) for _ in range(2)]
        assert [each and each.kind for each in reports] == ["opened", "frame", "frame", "frame"]
        with pytest.raises(CameraError, match="was killed by SIGKILL"):
            process.next_report(PATIENCE_S)


def is_hanging(process: int) -> bool:
    """It has blocked SIGTERM, with all the others."""
    blocked = Path(f"/proc/{process}/status").read_text().partition("\nSigBlk:")[2].split()[0]
    return bool(int(blocked, 16) >> (signal.SIGTERM - 1) & 1)


def test_after_stop_nothing_of_a_camera_is_left(tmp_path: Path) -> None:
    for fault in ("none", "hangs", "open_hangs", "freezes"):
        folder = tmp_path / fault
        folder.mkdir()
        with Loop(faulty_camera(folder, (fault, 0))) as loop:
            until(partial(processes_in, folder / "journal"))
        loop.check_accounts()
        (process,) = processes_in(folder / "journal")
        assert not is_there(process)


# The memory


@pytest.mark.parametrize(("rows", "columns"), [(48, 64), (480, 640)])
def test_no_image_is_ever_torn(rows: int, columns: int) -> None:
    pauses = random.Random(0)  # noqa: S311 - no secret
    seen = Counter[str]()
    with CaptureProcess("fast", full_speed, {"rows": rows, "columns": columns}) as process:
        while seen["frame"] < 1000:
            report = process.next_report(PATIENCE_S)
            assert report is not None
            seen[report.kind] += 1
            if report.kind == "frame":
                if pauses.random() < 0.05:
                    time.sleep(pauses.random() / 100)  # gives the child all the time to write where it must not
                image = process.take(report)
                assert image.shape == (rows, columns, 3)
                assert image.min() == image.max()
    assert seen["superseded"] > 0, "the child never ran out of slots"


def test_a_frame_in_hand_is_not_written_into() -> None:
    with CaptureProcess("fast", full_speed, {"rows": 48, "columns": 64}) as process:
        kept: list[tuple[Image, int]] = []
        while len(kept) < 20 * SLOTS:
            report = process.next_report(PATIENCE_S)
            assert report is not None
            if report.kind == "frame":
                image = process.take(report)
                kept.append((image, int(image[0, 0, 0])))
    assert all((image == value).all() for image, value in kept)


def test_clocks_of_both_processes_agree() -> None:
    with CaptureProcess("fast", full_speed, {"rows": 2, "columns": 2}) as process:
        before_ns, before_ms = time.monotonic_ns(), time.time_ns() // 1_000_000
        while (report := process.next_report(PATIENCE_S)) is None or report.kind != "frame":
            pass
        assert before_ns < report.captured_ns <= time.monotonic_ns()
        assert before_ms <= report.captured_at_ms <= time.time_ns() // 1_000_000


# The process


def test_the_process_imports_little() -> None:
    code = "import sys, agent.camera.capture_main; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603 - ours
    loaded = ended.stdout.split()
    assert "cv2" in loaded
    assert not {"onnxruntime", "onnx", "pydantic", "yaml", "paho", "rich", "typer", "torch"} & set(loaded)


PARENT = """
import sys, time
from faulty_source import faulty_source
from agent.camera.child_handle import CaptureProcess
from agent.camera.process_camera import ProcessCamera
for frame in ProcessCamera("faulty", faulty_source, {"journal": sys.argv[1], "lives": [["hangs", 2]]}):
    print(frame.seq, flush=True)
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with a camera that hangs after two frames."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", PARENT, str(tmp_path / "journal")]
    with subprocess.Popen(  # noqa: S603 - our own program
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_process_dies_with_its_parent_even_while_its_driver_hangs(
    tmp_path: Path, parent: subprocess.Popen[str], number: signal.Signals
) -> None:
    assert parent.stdout is not None
    assert list(itertools.islice(parent.stdout, 2)) == ["0\n", "1\n"]
    child = processes_in(tmp_path / "journal")[0]
    assert is_there(child)
    parent.send_signal(number)
    parent.wait(PATIENCE_S)
    until(lambda: not any(is_running(each) for each in processes_in(tmp_path / "journal")))


def is_running(process: int) -> bool:
    """A zombie is not; whoever has taken it over may take its time."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def test_ctrl_c_at_the_terminal_does_not_reach_the_process(tmp_path: Path, parent: subprocess.Popen[str]) -> None:
    assert parent.stdout is not None
    assert list(itertools.islice(parent.stdout, 2)) == ["0\n", "1\n"]
    child = processes_in(tmp_path / "journal")[0]
    assert os.getpgid(child) != os.getpgid(parent.pid)
    assert os.getsid(child) != os.getsid(parent.pid)


def test_a_process_that_cannot_be_ended_is_left_behind_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A process in the kernel's hands cannot be made here: one on which signals have no effect stands in.
    monkeypatch.setattr(subprocess.Popen, "send_signal", lambda *_: None)
    monkeypatch.setattr(os, "killpg", lambda *_: None)
    capture = faulty_camera(tmp_path, ("hangs", 2))
    with Loop(capture) as loop:
        until(lambda: 1 in loop.lives)
        assert capture.left_behind == 1
    assert "cannot be ended; left behind: 1" in caplog.text
    for process in processes_in(tmp_path / "journal"):
        with suppress(ProcessLookupError):  # the last one may have ended with its loop
            os.kill(process, signal.SIGKILL)
    until(lambda: not any(each.is_left_behind for each in capture._hanging))
    assert not any(is_there(process) for process in processes_in(tmp_path / "journal"))


def test_a_device_without_room_for_a_process_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = itertools.count()
    pair = socket.socketpair

    def socketpair(*arguments: int) -> tuple[socket.socket, socket.socket]:
        if next(attempts) < 3:
            raise OSError(24, "Too many open files")
        return pair(*arguments)

    monkeypatch.setattr(socket, "socketpair", socketpair)
    capture = faulty_camera(tmp_path)
    with Loop(capture) as loop:
        loop.sees_life(0)
    loop.check_accounts()
    assert next(attempts) == 4
    assert "the capture process of camera faulty cannot be started: Too many open files" in caplog.text


# Many faults


def random_lives(seed: int) -> list[tuple[str, int]]:
    chance = random.Random(seed)  # noqa: S311 - no secret
    return [(chance.choice(FAULTS), chance.randrange(4)) for _ in range(chance.choice((1, 1, 1, 2, 3)))]


def survive(seed: int, folder: Path) -> str:
    """One camera through its faults; returns what was wrong with it, if anything."""
    folder.mkdir()
    lives = [life for life in random_lives(seed) if life[0] not in HARMLESS]
    capture = faulty_camera(folder, *lives, timeouts=Timeouts(open_s=4.0, read_s=0.5))
    try:
        with Loop(capture) as loop:
            until(lambda: loop.lives and loop.lives[-1] >= len(lives))
            assert capture.state == "running"
        loop.check_accounts()
        assert not any(is_there(process) for process in processes_in(folder / "journal"))
    except AssertionError as error:
        return f"seed {seed}, {lives}: {error}, {capture.state}, {capture.reason}"
    return ""


def test_no_sequence_of_faults_leaves_a_camera_stuck(tmp_path: Path) -> None:
    first = 0 if os.environ.get("CI") else random.SystemRandom().randrange(1_000_000)
    sys.stdout.write(f"seeds {first} to {first + SEQUENCES - 1}\n")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        seeds = range(first, first + SEQUENCES)
        stuck = [wrong for wrong in pool.map(lambda seed: survive(seed, tmp_path / str(seed)), seeds) if wrong]
    assert stuck == []
