from __future__ import annotations

import itertools
import os
import re
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backoff import Backoff
from agent.camera import newest_frame, open_camera, sources
from agent.camera.decoder_warnings import DecoderWarnings
from agent.camera.file_camera import FileCamera
from agent.camera.folder_source import FolderSource
from agent.camera.latest_value import LatestValue
from agent.camera.newest_frame import NewestFrameCamera
from agent.camera.process_camera import RETRIES, Timeouts
from agent.camera.sources import kind_of
from agent.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from agent.camera import Frame
    from calibration.imaging.preprocess import Image

PATIENCE_S = 10.0
BIG, SMALL = (48, 64), (24, 32)


class ScriptedSource:
    """Grabs what the script says: a brightness, None for a frame that cannot be decoded, "end" for a failed grab."""

    name = "scripted"
    live = False
    refused_settings: Sequence[str] = ()
    is_rescaled = False
    stamp = None

    def __init__(self, script: Sequence[int | str | None], *, failing_opens: int = 0) -> None:
        self.frames_per_s = 10.0
        self.opened = 0
        self.closed = 0
        self.failing_opens = failing_opens
        self._script = list(script)
        self._next: int | str | None = None
        self.on_grab: Callable[[], None] = lambda: None

    def open(self) -> None:
        self.opened += 1
        if 1 < self.opened <= 1 + self.failing_opens:
            raise CameraError(what="still away", remedy="wait")

    def grab(self) -> bool:
        self.on_grab()
        if not self._script:
            return False
        self._next = self._script.pop(0)
        return self._next != "end"

    def retrieve(self) -> Image | None:
        return None if self._next is None else np.full((2, 2, 3), self._next, np.uint8)

    def trigger(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


class FakeTime(threading.Event):
    """A clock and what is waited on in one: waiting moves the clock and takes no time."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 5_000
        self.waits_s: list[float] = []
        self.stop_after_waits = 1_000

    def clock_ns(self) -> int:
        return self.now_ns

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits_s.append(timeout)
        self.now_ns += round(timeout * 1e9)
        if len(self.waits_s) >= self.stop_after_waits:
            self.set()
        return self.is_set()


def write_pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:03d}.png"), np.full((6, 8, 3), number, np.uint8))


def write_video(path: Path, count: int, frames_per_s: float) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), frames_per_s, (64, 48))
    assert writer.isOpened()
    for number in range(count):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()


def frames_of(camera: Iterable[Frame | None]) -> list[Frame]:
    frames = []
    for frame in camera:
        assert frame is not None
        frames.append(frame)
    return frames


# The slot


def test_a_newer_item_replaces_the_waiting_one() -> None:
    slot: LatestValue[str] = LatestValue()
    assert slot.put("old") is None
    assert slot.put("new") == "old"
    assert slot.take() == "new"


def test_a_waiting_item_is_still_handed_out_after_close_and_then_nothing() -> None:
    slot: LatestValue[str] = LatestValue()
    slot.put("last")
    slot.close()
    assert [slot.take(), slot.take()] == ["last", None]


def test_a_closed_slot_gives_an_item_back() -> None:
    slot: LatestValue[str] = LatestValue()
    slot.close()
    assert slot.put("late") == "late"
    assert slot.take() is None


@pytest.mark.parametrize("wake", [lambda slot: slot.put("item"), lambda slot: slot.close()])
def test_a_waiting_taker_wakes_at_an_item_and_at_close(wake: Callable[[LatestValue[str]], object]) -> None:
    slot: LatestValue[str] = LatestValue()
    taker = threading.Thread(target=slot.take, daemon=True)
    taker.start()
    assert taker.is_alive()
    wake(slot)
    taker.join(PATIENCE_S)
    assert not taker.is_alive()


@given(st.lists(st.booleans()))
def test_every_item_put_is_taken_lost_or_waiting(puts: list[bool]) -> None:
    slot: LatestValue[int] = LatestValue()
    numbers = itertools.count()
    put, taken, lost, waiting = 0, 0, 0, 0
    for is_put in puts:
        if is_put:
            lost += slot.put(next(numbers)) is not None
            put, waiting = put + 1, 1
        elif waiting:
            assert slot.take() == put - 1
            taken, waiting = taken + 1, 0
    assert put == taken + lost + waiting


# Files, every frame


def test_a_folder_gives_its_images_by_name_without_drops(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3)
    (tmp_path / "notes.txt").write_text("not a picture")
    with open_camera(str(tmp_path), "fast") as camera:
        frames = frames_of(camera)
    assert [frame.seq for frame in frames] == [0, 1, 2]
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [0, 1, 2]
    assert frames[0].image.shape == (6, 8, 3)
    assert frames[0].captured_ns <= frames[1].captured_ns
    assert camera.dropped == {}


def test_a_sixteen_bit_grey_image_becomes_bgr(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((4, 5), 0x7FFF, np.uint16))
    with open_camera(str(tmp_path), "fast") as camera:
        (frame,) = frames_of(camera)
    assert frame.image.dtype == np.uint8
    assert frame.image.tolist() == np.full((4, 5, 3), 0x7F).tolist()


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_a_corrupt_image_is_skipped_counted_and_named(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    write_pictures(tmp_path, 2)
    (tmp_path / "000a.png").write_bytes(content)
    with open_camera(str(tmp_path), "fast") as camera:
        frames = frames_of(camera)
    assert [frame.seq for frame in frames] == [0, 2]
    assert camera.dropped == {"unreadable": 1}
    assert [record.getMessage() for record in caplog.records if "000a.png" in record.getMessage()] != []


def test_a_corrupt_image_in_a_loop_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pictures(tmp_path, 1)
    (tmp_path / "bad.png").write_bytes(b"bad")
    with open_camera(str(tmp_path), "fast", loop=True) as camera:
        frames = frames_of(itertools.islice(camera, 3))
    assert [frame.seq for frame in frames] == [0, 2, 4]
    assert len(caplog.records) == 1


def test_a_looping_folder_without_a_readable_image_ends(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"bad")
    with open_camera(str(tmp_path), "fast", loop=True) as camera:
        assert list(camera) == []
    assert camera.dropped == {"unreadable": 1}


def test_a_video_read_fast_gives_every_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "video.avi", 10, 25.0)
    with open_camera(str(tmp_path / "video.avi"), "fast") as camera:
        frames = frames_of(camera)
    assert [frame.seq for frame in frames] == list(range(10))
    # Frames are not shared: the last one read did not overwrite the first.
    assert [round(float(frame.image.mean()) / 20) for frame in frames] == list(range(10))
    assert camera.captured == 10


def test_a_looping_video_starts_again(tmp_path: Path) -> None:
    write_video(tmp_path / "video.avi", 3, 25.0)
    with open_camera(str(tmp_path / "video.avi"), "fast", loop=True) as camera:
        frames = frames_of(itertools.islice(camera, 7))
    assert [frame.seq for frame in frames] == list(range(7))
    assert round(float(frames[3].image.mean())) == round(float(frames[0].image.mean()))


def test_stop_ends_a_looping_file(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    seen = []
    with open_camera(str(tmp_path), "fast", loop=True) as camera:
        for frame in camera:
            assert frame is not None
            seen.append(frame.seq)
            if frame.seq == 4:
                camera.stop()
    assert seen == [0, 1, 2, 3, 4]


# Pace


def test_frames_are_paced_by_an_absolute_schedule() -> None:
    time = FakeTime()
    source = ScriptedSource([1] * 5)
    due_s = []
    with FileCamera(source, paced=True, clock_ns=time.clock_ns, stopping=time) as camera:
        for frame in camera:
            due_s.append((frame.captured_ns - 5_000) / 1e9)
            time.now_ns += 130_000_000 if frame.seq == 1 else 10_000_000  # One frame takes longer than a period.
    assert due_s == pytest.approx([0.0, 0.1, 0.23, 0.3, 0.4])


def test_a_video_has_its_own_rate_unless_another_is_given(tmp_path: Path) -> None:
    write_video(tmp_path / "video.avi", 2, 12.0)
    own = sources.source_from(str(tmp_path / "video.avi"))
    given_ = sources.source_from(str(tmp_path / "video.avi"), 3.0)
    for source in (own, given_):
        source.open()
        source.close()
    assert (own.frames_per_s, given_.frames_per_s) == (12.0, 3.0)


def test_realtime_playback_hands_out_the_last_frame_and_accounts_for_all(tmp_path: Path) -> None:
    write_video(tmp_path / "video.avi", 8, 25.0)
    with open_camera(str(tmp_path / "video.avi"), "realtime", 400.0) as camera:
        frames = frames_of(camera)
    assert camera.captured == 8 == len(frames) + sum(camera.dropped.values())
    assert frames[-1].seq == 7


# Newest wins


def test_frames_not_fetched_in_time_are_counted_as_superseded() -> None:
    source = ScriptedSource([0, 1, 2, 3, 4])
    all_grabbed = threading.Event()
    source.on_grab = lambda: all_grabbed.set() if not source._script else None
    with NewestFrameCamera(FileCamera(source)) as camera:
        assert all_grabbed.wait(PATIENCE_S)
        camera._thread.join(PATIENCE_S)
        frames = frames_of(camera)
    assert [frame.seq for frame in frames] == [4]
    assert camera.dropped == {"superseded": 4}


@given(st.lists(st.sampled_from([0, None]), max_size=20), st.integers(0, 20))
def test_every_captured_frame_is_handed_out_or_dropped_with_a_reason(script: list[int | None], wanted: int) -> None:
    with NewestFrameCamera(FileCamera(ScriptedSource(script))) as camera:
        fetched = len(list(itertools.islice(camera, wanted)))
    assert camera.captured == fetched + sum(camera.dropped.values())


def test_stop_ends_the_iteration_while_it_waits_for_a_frame() -> None:
    source = ScriptedSource([7, 7])
    second_grab, release = threading.Event(), threading.Event()
    grabs = itertools.count()

    def hang_at_the_second_grab() -> None:
        if next(grabs) == 1:
            second_grab.set()
            release.wait(PATIENCE_S)

    source.on_grab = hang_at_the_second_grab
    seen: list[int] = []
    with NewestFrameCamera(FileCamera(source)) as camera:
        reader = threading.Thread(target=lambda: seen.extend(each.seq for each in camera if each), daemon=True)
        reader.start()
        assert second_grab.wait(PATIENCE_S)
        camera.stop()
        reader.join(1.0)
        assert not reader.is_alive()
        release.set()
    assert camera.captured == len(seen) + sum(camera.dropped.values())
    assert camera.state == "closed"


def test_a_driver_that_hangs_does_not_hold_up_exit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(newest_frame, "_JOIN_TIMEOUT_S", 0.05)
    source = ScriptedSource([1])
    hangs, release = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        release.wait(PATIENCE_S)

    source.on_grab = hang
    with NewestFrameCamera(FileCamera(source)) as camera:
        assert hangs.wait(PATIENCE_S)
    assert "did not stop" in caplog.text
    assert source.closed == 0  # Closing under a running read would crash the process.
    release.set()
    camera._thread.join(PATIENCE_S)


def test_a_capture_that_dies_ends_the_iteration_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    source = ScriptedSource([1])

    def fail() -> None:
        raise ZeroDivisionError

    source.on_grab = fail
    with NewestFrameCamera(FileCamera(source)) as camera, pytest.raises(CameraError, match="ended unexpectedly"):
        list(camera)


def test_a_looping_file_that_vanishes_ends_with_its_error() -> None:
    source = ScriptedSource([1, "end"], failing_opens=1)
    with NewestFrameCamera(FileCamera(source, loop=True)) as camera, pytest.raises(CameraError, match="still away"):
        list(camera)


# A live source that goes away; all that can happen to it: tests/faults


def test_retries_back_off_with_jitter() -> None:
    backoff = Backoff(RETRIES)
    waits_s = [backoff.next_s() for _ in range(40)]
    assert all(0.5 <= wait_s <= 10.0 for wait_s in waits_s)
    assert waits_s[0] <= 1.0
    assert max(waits_s) > 5.0
    assert len(set(waits_s)) > 10


def condition_of(source: int | str) -> str:
    """Why a live camera is lost."""
    with open_camera(source, timeouts=Timeouts(open_s=PATIENCE_S)) as camera:
        reasons = {camera.reason}
        in_vain = threading.Timer(PATIENCE_S, camera.stop)
        in_vain.start()
        for _ in camera:
            assert camera.state == "lost"
            reasons.add(camera.reason)
            if len(reasons) > 1:
                break
        in_vain.cancel()
    assert camera.state == "closed"
    assert camera.captured == 0
    (reason,) = (reason for reason in reasons if "is being opened" not in reason)
    return reason


@pytest.mark.slow
def test_a_device_that_is_absent_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    assert condition_of(97) == "camera 97 does not open"
    assert "/dev/video*: " in caplog.text


@pytest.mark.slow
def test_a_stream_that_does_not_answer_is_lost_and_its_password_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert condition_of("rtsp://user:secret@127.0.0.1:9/line") == "stream rtsp://***@127.0.0.1:9/line does not open"
    assert "check address, port" in caplog.text
    assert "secret" not in caplog.text


# Sources that do not open


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (0, "device"),
        ("2", "device"),
        ("/dev/video3", "device"),
        ("/dev/v4l/by-id/usb-ACME_Camera_0001-video-index0", "device"),
        ("/dev/v4l/by-path/pci-0000:00:14.0-usb-0:1:1.0-video-index0", "device"),
        ("/dev/camera-left", "device"),
        ("/dev/null", "device"),
        ("/dev/shm/line.avi", "path"),  # noqa: S108 - nothing is written
        ("/dev", "path"),
        ("rtsp://camera/stream", "stream"),
        ("https://camera/mjpeg", "stream"),
        ("videotestsrc ! appsink", "pipeline"),
        ("rtspsrc location=rtsp://camera ! appsink", "pipeline"),
        ("line.mp4", "path"),
        ("/data/pictures", "path"),
    ],
)
def test_the_kind_of_a_source_follows_from_its_name(source: int | str, kind: str) -> None:
    assert kind_of(source) == kind


def test_a_link_to_a_device_is_a_device_also_before_it_is_plugged_in(tmp_path: Path) -> None:
    for name, target in (("here", "/dev/null"), ("absent", "/dev/video77"), ("twice", str(tmp_path / "absent"))):
        (tmp_path / name).symlink_to(target)
        assert kind_of(str(tmp_path / name)) == "device"
    (tmp_path / "film").symlink_to(tmp_path / "film.avi")
    assert kind_of(str(tmp_path / "film")) == "path"


def test_a_missing_video_is_refused_with_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CameraError, match=re.escape(str(tmp_path / "missing.mp4"))):
        open_camera("missing.mp4").__enter__()


def test_a_file_that_is_not_a_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fake.mp4").write_text("no video")
    with pytest.raises(CameraError, match="does not open as a video"):
        open_camera(str(tmp_path / "fake.mp4")).__enter__()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match=f"no images in image folder {re.escape(str(tmp_path))}"):
        open_camera(str(tmp_path), "fast").__enter__()


@pytest.mark.skipif(sources.has_gstreamer(), reason="this OpenCV has GStreamer")
def test_a_pipeline_without_gstreamer_is_refused_with_the_reason() -> None:
    with pytest.raises(CameraError, match="this OpenCV has no GStreamer"):
        open_camera("videotestsrc ! appsink").__enter__()


def test_a_folder_source_closed_twice_and_opened_again_starts_from_the_beginning(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    source = FolderSource(tmp_path)
    for _ in range(2):
        source.open()
        assert source.grab()
        image = source.retrieve()
        assert image is not None
        assert int(image[0, 0, 0]) == 0
        source.close()
        source.close()
        assert not source.grab()


@pytest.mark.parametrize(
    ("printed", "is_damaged"),
    [
        ("", False),
        ("Corrupt JPEG data: bad Huffman code\n", True),
        ("Corrupt JPEG data: premature end of data segment\n", True),
        ("Corrupt JPEG data: 2 extraneous bytes before marker 0xd9\n", False),
    ],
)
def test_what_libjpeg_prints_says_whether_a_frame_is_damaged_and_is_not_shown(
    capfd: pytest.CaptureFixture[str], printed: str, *, is_damaged: bool
) -> None:
    warnings = DecoderWarnings()
    for _ in range(2):
        with warnings:
            os.write(2, printed.encode())
        assert warnings.is_damaged is is_damaged
        with warnings:
            pass
        assert not warnings.is_damaged
    os.write(2, b"shown")
    assert capfd.readouterr().err == "shown"


# A real network camera


class _ShortStream(BaseHTTPRequestHandler):
    """Sends five JPEG pictures and hangs up, as a camera does that restarts."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        _, encoded = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))
        for _ in range(5):
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(encoded)}\r\n\r\n"
            self.wfile.write(head.encode() + encoded.tobytes() + b"\r\n")

    def log_message(self, *_: object) -> None:
        pass


class _FaultyStream(_ShortStream):
    """Sends JPEG frames without end; every other one is small, cut short, has a hole, or is no JPEG."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        noise = np.random.default_rng(0).integers(0, 256, (*BIG, 3)).astype(np.uint8)
        good, small = (cv2.imencode(".jpg", noise[:rows, :columns])[1].tobytes() for rows, columns in (BIG, SMALL))
        with_a_hole = good[:1500] + good[-2:]
        with suppress(OSError):
            for frame in itertools.cycle((good, small, good, good[:-60], good, bytes(900), good, with_a_hole)):
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n"
                self.wfile.write(head.encode() + frame + b"\r\n")
                time.sleep(0.01)


@pytest.mark.slow
def test_a_frame_of_another_size_has_it_and_a_damaged_frame_is_one_frame(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _FaultyStream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with open_camera(f"http://127.0.0.1:{server.server_port}/stream") as camera:
            in_vain = threading.Timer(PATIENCE_S, camera.stop)
            in_vain.start()
            seen = {}
            for frame in camera:
                if frame is not None and frame.seq >= 8:  # FFmpeg may use the first to find out what it is
                    seen[frame.seq] = (frame.image.shape[:2], frame.is_damaged)
                if len(seen) >= 24:
                    camera.stop()
            in_vain.cancel()
        server.shutdown()
    assert "is lost" not in caplog.text
    assert camera.dropped.get("unreadable", 0) == 0
    assert {condition for condition in seen.values() if not condition[1]} == {(BIG, False), (SMALL, False)}
    assert {seq for seq in seen if seen[seq][1]} == {seq for seq in seen if seq % 8 in {3, 5, 7}}
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_network_camera_that_hangs_up_is_read_again() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _ShortStream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        fetched = 0
        with open_camera(f"http://user:secret@127.0.0.1:{server.server_port}/stream") as camera:
            in_vain = threading.Timer(PATIENCE_S, camera.stop)
            in_vain.start()
            for frame in camera:
                if frame is None:
                    continue
                fetched += 1
                if frame.seq > 5:  # More than one connection gives.
                    camera.stop()
            in_vain.cancel()
        server.shutdown()
    assert camera.captured > 5
    assert camera.captured == fetched + sum(camera.dropped.values())
