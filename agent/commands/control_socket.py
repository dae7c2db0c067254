"""Commands from this device itself: one line of JSON over a socket in the state folder, answered line by line.

Who may write to the socket may command: its owner, its group, root. No broker is needed, and no token.
"""

from __future__ import annotations

import json
import logging
import os
import pwd
import queue
import socket
import socketserver
import struct
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import StationUnreachableError
from agent.messages.records import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from agent.messages.records import Payload

log = logging.getLogger(__name__)

NAME = "control.sock"
_LONGEST = 64 * 1024
_PATIENCE_S = 10.0
_FOLLOW_UP_WITHIN_S = 600.0


class ControlSocket:
    """Listens from enter to exit.

    Args:
        state_dir: Where the socket lies.
        answer: Given the name of a command, its text and who gave it; carries it out.
        page_pid: Of the live page's process, whose user is ``web``; None while there is none.
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
        """Listen; a folder in which no socket can be is logged, since the agent is not to stop for it."""
        try:
            with _short(self._state_dir) as folder:
                new = Path(folder, f"{NAME}.new")
                new.unlink(missing_ok=True)  # of an agent that was killed; it is the only one here
                self._server = _Server(str(new), self._serve)
                new.chmod(0o660)
                new.replace(Path(folder, NAME))  # whoever sees it is heard
        except OSError as error:
            log.warning("no commands on this device: no socket in %s: %s", self._state_dir, error)
            return self
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="control", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            with suppress(OSError):
                (self._state_dir / NAME).unlink()

    def follow_up(self, answer: Payload) -> None:
        """Tell whoever gave that command how it went on; from any thread."""
        waiting = self._waiting.get(str(answer["commandId"]))
        if waiting is not None:
            waiting.put(answer)

    def _user_of(self, connection: socket.socket) -> str:
        """Who it is by the operating system, which nobody can pretend to be."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        (process, user, _) = struct.unpack("3i", credentials)
        if process == self._page_pid():
            return "web"
        try:
            return pwd.getpwuid(user).pw_name
        except KeyError:
            return f"user {user}"

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(_PATIENCE_S)
        with connection.makefile("rb") as file:
            try:
                given = json.loads(file.readline(_LONGEST))
                name, command_id = str(given.pop("command")), str(given["commandId"])
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                return  # our own command line sends nothing else
            follow_ups: queue.SimpleQueue[Payload] = queue.SimpleQueue()
            self._waiting[command_id] = follow_ups
            try:
                answer = self._answer(name, json.dumps(given).encode(), self._user_of(connection))
                _tell(connection, answer)
                while answer["progress"] is not None and answer["progress"] < 1:
                    answer = follow_ups.get(timeout=_FOLLOW_UP_WITHIN_S)
                    _tell(connection, answer)
            except queue.Empty:
                log.warning("command %s did not end in time", name)
            finally:
                del self._waiting[command_id]


def ask_station(state_dir: Path, command: Payload) -> Iterator[Payload]:
    """Give a command to the agent that runs on these records, and tell its answers until it is done.

    Raises:
        StationUnreachableError: No agent runs there, this user may not command it, or it ends before its last word.
    """
    is_done = False
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(_PATIENCE_S)
            with _short(state_dir) as folder:
                line.connect(f"{folder}/{NAME}")
            line.sendall(to_json(command).encode() + b"\n")
            line.settimeout(_FOLLOW_UP_WITHIN_S)
            with line.makefile("rb") as file:
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
            remedy="do it as the agent's user or as root, for example with sudo -u shiftwatch",
        ) from error
    if not is_done:
        raise StationUnreachableError(
            what=f"the agent on {state_dir} has not said what became of the command",
            remedy="see whether it still runs, and its log; what judges is in `info`",
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
            with suppress(OSError):  # whoever asked has gone
                self._serve(request)


@contextmanager
def _short(folder: Path) -> Iterator[str]:
    """Another name of a folder: the path of a socket must not be longer than 107 bytes."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _tell(connection: socket.socket, answer: Payload) -> None:
    connection.sendall(to_json(answer).encode() + b"\n")
