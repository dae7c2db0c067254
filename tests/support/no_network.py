"""Runs programs where there is no network but a name server that knows nothing, and prints what they look up.

``unshare --map-root-user --net --mount python no_network.py`` with a list of commands as JSON on stdin; the answer is a
JSON object: ``codes`` and ``printed`` of the commands, and the names that were looked up.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

_SET_FLAGS, _IS_UP = 0x8914, 1
_UNKNOWN = b"\x81\x83"


def _prepare(folder: Path) -> socket.socket:
    """Bring the loopback up, and become its only name server."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH14x", b"lo", _IS_UP))
    for name, content in (("resolv.conf", "nameserver 127.0.0.1\n"), ("hosts", "127.0.0.1 localhost\n")):
        (folder / name).write_text(content)
        subprocess.run(["mount", "--bind", folder / name, f"/etc/{name}"], check=True)  # noqa: S603, S607 - fixed words
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    return server


def _answer(server: socket.socket, names: list[str]) -> None:
    while True:
        query, sender = server.recvfrom(4096)
        end = query.index(b"\0", 12)
        names.append(query[13:end].decode(errors="replace"))
        server.sendto(query[:2] + _UNKNOWN + query[4:6] + bytes(6) + query[12 : end + 5], sender)


def main() -> None:
    names: list[str] = []
    with tempfile.TemporaryDirectory() as folder, _prepare(Path(folder)) as server:
        threading.Thread(target=_answer, args=(server, names), daemon=True).start()
        ended = [
            subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # noqa: S603 - the test's
            for command in json.load(sys.stdin)
        ]
        subprocess.run(["umount", "/etc/resolv.conf", "/etc/hosts"], check=True)  # noqa: S607 - fixed words
    json.dump(
        {"codes": [each.returncode for each in ended], "printed": [each.stdout for each in ended], "names": names},
        sys.stdout,
    )


if __name__ == "__main__":
    main()
