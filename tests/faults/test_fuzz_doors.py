"""What comes in from outside, damaged at random: images, requests of the page, lines of the control socket, messages.

300 inputs a door; 10,000 with SHIFTWATCH_SOAK=full.
"""

from __future__ import annotations

import itertools
import json
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from agent.commands.control_socket import NAME, ControlSocket
from calibration.imaging.image_files import read_image
from tests.agent.commands.test_dispatcher import ALL, Desk
from tests.support.fuzzing import CASES, LONGEST_S, Door, damaged, report
from tests.support.pages import TOKEN, is_alive, result, seen, serving

if TYPE_CHECKING:
    from pathlib import Path

    from agent.messages.records import Payload

SIDE = 48
GRADIENT = np.add.outer(np.arange(SIDE), np.arange(SIDE)).astype(np.uint8)[..., None] * np.array([1, 2, 3], np.uint8)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp", ".ppm", "16.png", "16.tif"])
def test_a_damaged_image_file_is_read_or_refused(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = GRADIENT.astype(np.uint16) << 8 if suffix.startswith("16") else GRADIENT
    path = tmp_path / f"image.{suffix.removeprefix('16').removeprefix('.')}"
    seed = cv2.imencode(path.suffix, image)[1].tobytes()
    door = Door(f"image files, {suffix}", LONGEST_S)
    for content in damaged([seed], CASES // 8):
        path.write_bytes(content)
        with door.case():
            found = read_image(path)
            assert found.dtype == np.uint8
            assert found.shape[2:] == (3,)
    report(door, capsys)


ASKED = "GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nConnection: close\r\n\r\n"
GIVEN = (
    "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n"
    "Content-Length: {}\r\nConnection: close\r\n\r\n{}"
)
PAUSE = json.dumps({"commandId": "1", "args": {"reason": "lamp"}})
LABEL = json.dumps({"label": "good"})
REQUESTS = [
    *(
        ASKED.format(path).encode()
        for path in ("/", "/page.js", "/picture?after=3", "/archive", "/archive?before=12", "/archive/0190-a/full.jpg")
    ),
    *(
        GIVEN.format(path, TOKEN, len(body), body).encode()
        for path, body in (("/command/pause", PAUSE), ("/archive/0190-a", LABEL), ("/unlock", "{}"))
    ),
    b"POST /unlock HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
]


def test_damaged_requests_leave_the_page_serving(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path) as served:
        served.put(result(1))
        pid = served.page.pid

        def ask(content: bytes) -> str:
            served.page.show(seen())  # otherwise /picture waits for one
            with socket.create_connection(("127.0.0.1", served.port), 10) as connection:
                with suppress(OSError):
                    connection.sendall(content)
                    connection.shutdown(socket.SHUT_WR)
                with suppress(ConnectionResetError):
                    return connection.recv(4096).partition(b"\r\n")[0].decode("latin-1")[9:12] or "closed"
            return "closed"

        door = Door("web requests", LONGEST_S, pid)
        for content in damaged(REQUESTS):
            with door.case() as ended:
                ended(ask(content))
        report(door, capsys)
        assert served.page.pid == pid
        assert is_alive(pid)
        assert served.ask("/").status == 200


LINES = (
    b'{"command": "pause", "commandId": "1", "args": {"reason": "lamp"}}\n',
    b'{"command": "threshold", "commandId": "2", "args": {"threshold": 12.5}, "expires": 1800000000000}\n',
    b'{"command": "recalibrate", "commandId": "3", "args": {"mode": "full", "parts": 40}, "by": "shift 2"}\n',
)


def test_damaged_lines_leave_the_control_socket_answering(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given: list[str] = []

    def answer(name: str, text: bytes, user: str) -> Payload:
        given.append(f"{user}: {name} {text!r}")
        return {"commandId": json.loads(text)["commandId"], "progress": None, "accepted": True}

    def say(content: bytes) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(tmp_path / NAME))
            with suppress(OSError):
                connection.sendall(content)
                connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                return "answered" if connection.recv(4096) else "closed"
        return "closed"

    with ControlSocket(tmp_path, answer):
        door = Door("control socket", LONGEST_S)
        for content in damaged(LINES):
            with door.case() as ended:
                ended(say(content))
        report(door, capsys)
        assert say(LINES[0]) == "answered"
        assert given


def test_damaged_commands_are_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desk = Desk(tmp_path)
    names = itertools.cycle((*ALL, "recalibrate", "reboot", ""))

    door = Door("MQTT commands", LONGEST_S)
    for content in damaged([line.replace(b'"command"', b'"by"') for line in LINES]):
        with door.case() as ended:
            answer = desk.commands.answer(next(names), content)
            assert json.loads(json.dumps(answer, allow_nan=False)) == answer
            desk.parts._waiting.clear()
            ended("accepted" if answer["accepted"] else "refused")
    report(door, capsys)
