"""A network camera: an MJPEG stream over HTTP."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import cv2

from tests.support.stations import good_parts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from calibration.imaging.preprocess import Image


class _Stream(BaseHTTPRequestHandler):
    """Twenty images a second, again and again, until the camera is switched off."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        number = 0
        while not self.server.is_off.wait(0.05):  # type: ignore[attr-defined]
            pictures = self.server.pictures  # type: ignore[attr-defined]
            picture = pictures[number % len(pictures)]
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            self.wfile.write(head.encode() + picture + b"\r\n")
            number += 1

    def log_message(self, *_: object) -> None:
        pass


class NetworkCamera(ThreadingHTTPServer):
    """On from enter to exit.

    Args:
        port: 0 takes any.
        images: What it shows, again and again; None: five good parts.
    """

    def __init__(self, port: int = 0, images: Iterable[Image] | None = None) -> None:
        super().__init__(("127.0.0.1", port), _Stream)
        shown = good_parts(5) if images is None else images
        self.pictures = [cv2.imencode(".jpg", image)[1].tobytes() for image in shown]
        self.address = f"http://127.0.0.1:{self.server_port}/stream"
        self.is_off = threading.Event()

    def handle_error(self, *_: object) -> None:
        """Viewers may go at any time."""

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_off.set()
        self.shutdown()
        self.server_close()
