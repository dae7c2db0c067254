"""A network camera above a belt, as a process of its own: parts come, stand still, and go; what comes can be chosen."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import cv2
import numpy as np

from agent.demo.conveyor import HEIGHT_PX, WIDTH_PX, parts
from tests.support.real_broker import free_port, listens, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from calibration.imaging.preprocess import Image

_FRAME_S = 0.04
_MOVING_FRAMES, _STILL_FRAMES = 5, 18
_GOOD_PARTS, _SCRATCHED_PARTS = 60, 4
_NOISES = 16  # drawn once: drawing one takes as long as all the rest of a frame


class Belt:
    """What the camera sees, and the orders of a test.

    Attributes:
        next_kind: What comes next: ``good``, ``stray`` or ``scratch``; then good parts again.
        is_empty: No part comes, and the belt stands still.
        is_dirty: There is grease on the lens.
        shown: Number of parts that stood still so far.
    """

    def __init__(self) -> None:
        self.next_kind, self.is_empty, self.is_dirty, self.shown = "good", False, False, 0
        self.jpeg = b""
        self._random = np.random.default_rng(0)
        self._noises = self._random.normal(0, 1.5, (_NOISES, HEIGHT_PX, WIDTH_PX, 3)).astype(np.float32)
        self._good = [part.image for part in parts(_GOOD_PARTS, seed=1)]
        seen = parts(400, seed=2, defect_every=6)
        scratched = (part.image for part in seen if part.defect == "scratch")
        self._scratched = [next(scratched) for _ in range(_SCRATCHED_PARTS)]
        self._belt = np.full((HEIGHT_PX, WIDTH_PX, 3), (58, 62, 55), np.uint8)
        self._belt[:: HEIGHT_PX - 1] = 130

    def run(self) -> None:
        while True:
            for scene in self._frames():
                frame = _greasy(scene) if self.is_dirty else scene
                noise = self._noises[self._random.integers(len(self._noises))]
                self.jpeg = cv2.imencode(".jpg", np.clip(frame + noise, 0, 255).astype(np.uint8))[1].tobytes()
                time.sleep(_FRAME_S)

    def _frames(self) -> Iterator[Image]:
        if self.is_empty:
            yield self._belt
            return
        kind, self.next_kind = self.next_kind, "good"
        part = {"good": self._good, "scratch": self._scratched, "stray": [self._stray()]}[kind]
        shown = part[self.shown % len(part)]
        for step in range(_MOVING_FRAMES):
            moving = self._belt.copy()
            moving[:, (step + 1) * WIDTH_PX // (_MOVING_FRAMES + 1) :] = shown[:, : -((step + 1) * WIDTH_PX // 6)]
            yield moving
        for _ in range(_STILL_FRAMES):
            yield shown
        self.shown += 1

    def _stray(self) -> Image:
        """A glove."""
        stray = self._belt.copy()
        cv2.ellipse(stray, (320, 250), (130, 90), 20, 0, 360, (40, 90, 190), -1, cv2.LINE_AA)
        return np.asarray(stray, np.uint8)


def _greasy(frame: Image) -> Image:
    spot = np.zeros(frame.shape[:2], np.float32)
    cv2.circle(spot, (330, 230), 120, 1.0, -1)
    weight = cv2.GaussianBlur(spot, (0, 0), 20)[..., None]
    blurred = cv2.GaussianBlur(frame, (0, 0), 9).astype(np.float32)
    return np.asarray(frame * (1 - weight) + (0.8 * blurred + 30) * weight, np.uint8)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        belt: Belt = self.server.belt  # type: ignore[attr-defined]
        asked = urlsplit(self.path)
        if asked.path == "/order":
            for key, (value,) in parse_qs(asked.query).items():
                setattr(belt, key, value if key == "next_kind" else value == "yes")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(str(belt.shown).encode())
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        sent = b""
        while True:
            if belt.jpeg is not sent:
                sent = belt.jpeg
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(sent)}\r\n\r\n"
                self.wfile.write(head.encode() + sent + b"\r\n")
            time.sleep(_FRAME_S / 4)

    def log_message(self, *_: object) -> None:
        pass


class BeltCamera:
    """The camera's process, from enter to exit."""

    def __init__(self) -> None:
        self._port = free_port()
        self.address = f"http://127.0.0.1:{self._port}/stream"

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.support.belt_camera", str(self._port)]
        self._process = subprocess.Popen(command)  # noqa: S603 - this file
        wait_for(lambda: listens(self._port), 60)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def order(self, **orders: str) -> int:
        """Give orders; returns how many parts have stood still so far."""
        query = "&".join(f"{name}={value}" for name, value in orders.items())
        with urlopen(f"http://127.0.0.1:{self._port}/order?{query}", timeout=10) as answer:
            return int(answer.read())

    def let_pass(self, parts: int) -> None:
        """Wait until that many more parts have stood still."""
        until = self.order() + parts
        wait_for(lambda: self.order() >= until, 60)

    def let_one_pass(self, kind: str) -> None:
        """A part of this kind comes next; wait until it has stood still."""
        self.order(next_kind=kind)
        self.let_pass(3)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # viewers may go at any time
    server.belt = Belt()  # type: ignore[attr-defined]
    threading.Thread(target=server.belt.run, daemon=True).start()  # type: ignore[attr-defined]
    server.serve_forever()
