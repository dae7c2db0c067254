"""Commands from this device itself: one line of JSON over a socket in the state folder, answered line by line.

Everyone who may write to the socket may command: its owner, its group, root. Neither a broker nor a token is needed.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import queue
import socket
import socketserver
import stat
import struct
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import StationUnreachableError
from agent.messages.records import to_json
from agent.state_owner import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from agent.messages.records import Payload

log = logging.getLogger(__name__)

NAME = "control.sock"
_MAX_BYTES = 64 * 1024
_TIMEOUT_S = 10.0
_FOLLOW_UP_WITHIN_S = 600.0


class ControlSocket:
    """Listens from enter to exit.

    Args:
        state_dir: Folder of the socket.
        answer: Carries out a command, given its name, its text and the user.
        page_pid: Process of the live page, whose user is ``web``; None while there is none.
    """

    def __init__(
        self,
        state_dir: Path,
        answer: Callable[[str, bytes, str], Payload],
        page_pid: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._state_dir = state_dir
        self._answer = answer
        self._page_pid = page_pid
        self._waiting: dict[str, queue.SimpleQueue[Payload]] = {}
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        """Listen; if the folder cannot hold a socket, that is logged, and the agent runs without one."""
        try:
            with _short(self._state_dir) as folder:
                new = Path(folder, f"{NAME}.new")
                new.unlink(missing_ok=True)  # left by an agent that was killed; the folder has one agent at a time
                self._server = _Server(str(new), self._serve)
                new.chmod(0o660)
                new.replace(Path(folder, NAME))  # from now on clients can connect
        except OSError as error:
            log.warning("no commands on this device: no socket in %s: %s", self._state_dir, error)
            return self
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="control", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            with suppress(OSError):
                (self._state_dir / NAME).unlink()

    def follow_up(self, answer: Payload) -> None:
        """Send the progress of a command to the client that gave it; from any thread."""
        waiting = self._waiting.get(str(answer["commandId"]))
        if waiting is not None:
            waiting.put(answer)

    def _user_of(self, connection: socket.socket) -> str:
        """The user as the operating system reports it, which cannot be forged."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        (process, user, _) = struct.unpack("3i", credentials)
        if process == self._page_pid():
            return "web"
        name = name_of(user)
        return f"user {name}" if name.isdecimal() else name

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(_TIMEOUT_S)
        with connection.makefile("rb") as file:
            try:
                given = json.loads(file.readline(_MAX_BYTES))
                name, command_id = str(given.pop("command")), str(given["commandId"])
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                return  # our own command line sends nothing like it
            follow_ups: queue.SimpleQueue[Payload] = queue.SimpleQueue()
            self._waiting[command_id] = follow_ups
            try:
                answer = self._answer(name, json.dumps(given).encode(), self._user_of(connection))
                _send(connection, answer)
                while answer["progress"] is not None and answer["progress"] < 1:
                    answer = follow_ups.get(timeout=_FOLLOW_UP_WITHIN_S)
                    _send(connection, answer)
            except queue.Empty:
                log.warning("command %s did not end in time", name)
            finally:
                del self._waiting[command_id]


def ask_station(state_dir: Path, command: Payload) -> Iterator[Payload]:
    """Send a command to the agent that runs on a state folder; yields its answers until the command is done.

    Raises:
        StationUnreachableError: No agent runs there, this user may not command it, or it ends before its final answer.
    """
    is_done = False
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_S)
            with _socket_in(state_dir) as path:
                connection.connect(path)
            connection.sendall(to_json(command).encode() + b"\n")
            connection.settimeout(_FOLLOW_UP_WITHIN_S)
            with connection.makefile("rb") as file:
                for text in file:
                    answer = json.loads(text)
                    is_done = answer["progress"] is None or answer["progress"] >= 1
                    yield answer
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise StationUnreachableError(
            what=f"no agent is running on {state_dir}", remedy="start it: shiftwatch-agent run --config ..."
        ) from error
    except OSError as error:
        raise StationUnreachableError(
            what=f"the agent on {state_dir} cannot be commanded: {error.strerror or error}",
            remedy="give the command as the agent's user or as root, for example with sudo -u shiftwatch",
        ) from error
    if not is_done:
        raise StationUnreachableError(
            what=f"the agent on {state_dir} has not answered how the command ended",
            remedy="check whether it still runs, and see its log; the active bundle is in `info`",
        )


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, path: str, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        super().__init__(path, socketserver.BaseRequestHandler)

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        del client_address
        if isinstance(request, socket.socket):
            with suppress(OSError):  # the client has gone
                self._serve(request)


@contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A short name of a folder: the path of a socket must not be longer than 107 bytes."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


@contextmanager
def _socket_in(state_dir: Path) -> Iterator[str]:
    """A short path of the socket itself: a link of its name could lead root's commands to another program."""
    with _short(state_dir) as folder:
        descriptor = os.open(f"{folder}/{NAME}", os.O_PATH | os.O_NOFOLLOW)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENOTSOCK, f"{NAME} is not a socket")
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _send(connection: socket.socket, answer: Payload) -> None:
    connection.sendall(to_json(answer).encode() + b"\n")
