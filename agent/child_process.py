"""Child Python processes: how they are started, talked to and ended. None outlives the thread that started it."""

from __future__ import annotations

import ctypes
import importlib
import json
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calibration.plain_text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from calibration.errors import ShiftwatchError

LONGEST_MESSAGE_BYTES = 128 * 1024
_KILLED_WITHIN_S = 1.0
_PR_SET_PDEATHSIG = 1
_AUTOGROUP = Path("/proc/self/autogroup")
_AUTOGROUP_ATTEMPTS, _AUTOGROUP_AGAIN_S = 10, 0.11


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildProgram:
    """What a child process runs, and how it is treated.

    Attributes:
        module: Its ``main`` is called with the order, the socket to the parent, and the inherited descriptors.
        failure: Raised when the process cannot be started, or has died.
        remedy: What to do when it has died.
        memory_bytes: Size of the memory that it shares with the parent; its descriptor comes first.
        grace_s: Time from SIGTERM to SIGKILL; 0 kills at once.
        niceness: 0 to 19, the lowest priority.
        is_expendable: A batch job, and the first to be killed when the device runs out of memory.
    """

    module: str
    failure: Callable[..., ShiftwatchError]
    remedy: str = ""
    memory_bytes: int = 0
    grace_s: float = 0.0
    niceness: int = 0
    is_expendable: bool = False


class ChildProcess:
    """Runs a program from enter to exit; both ends exchange messages of at most `LONGEST_MESSAGE_BYTES` over a socket.

    The process is killed when the thread that entered it ends. It has a session of its own: Ctrl-C reaches only the
    parent.

    Args:
        program: What it runs.
        name: For messages, such as ``the capture process of camera 0``.
        order: What to do, as JSON. It is the first message: everybody can read a command line, and it may hold secrets.
        descriptors: Open files that the process inherits.
        environment: Variables added to those of the parent.
        log: Descriptor that gets what the process prints.
    """

    def __init__(  # noqa: PLR0913 - each once
        self,
        program: ChildProgram,
        name: str,
        order: object,
        *,
        descriptors: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        log: int = 2,
    ) -> None:
        self._program = program
        self._name = name
        self._order = json.dumps(order).encode()
        self._descriptors = descriptors
        self._environment = {**os.environ, **(environment or {})}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        """Start the process; the program's ``failure`` if this device has no room for it."""
        try:
            with ExitStack() as started:
                self._start(started)
                self._resources = started.pop_all()
        except OSError as error:
            raise self._program.failure(
                what=f"{self._name} cannot be started: {error.strerror}",
                remedy="see which processes take the memory of this device, and its limits for this user",
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, and close socket and memory."""
        self._resources.close()

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None  # noqa: S101 - after enter
        return self._process.pid

    @property
    def is_left_behind(self) -> bool:
        """After exit: killed, but still there, because it hangs inside the kernel."""
        return self._process is not None and self._process.poll() is None

    def send(self, message: bytes) -> bool:
        """Send without waiting; False if the process has died, or has not read enough of the messages before."""
        try:
            self.socket.send(message, socket.MSG_DONTWAIT)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self, timeout_s: float) -> bytes | None:
        """The next message; None if there is none in time. The program's ``failure`` if the process has died."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        if not poll.poll(1000 * timeout_s):
            return None
        try:
            message = self.socket.recv(LONGEST_MESSAGE_BYTES)
        except ConnectionResetError:  # it died before it read all of ours; its own last messages come after this error
            message = self.socket.recv(LONGEST_MESSAGE_BYTES)
        if not message:
            raise self._program.failure(what=self._how_it_ended(), remedy=self._program.remedy)
        return message

    def kill(self) -> None:
        """Kill the process with all that it started; from any thread."""
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _start(self, started: ExitStack) -> None:
        program = self._program
        with ExitStack() as only_theirs:
            self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            started.enter_context(self.socket)
            descriptors = [only_theirs.enter_context(theirs).fileno()]
            if program.memory_bytes:
                descriptors.append(os.memfd_create("shiftwatch"))
                only_theirs.callback(os.close, descriptors[-1])
                os.truncate(descriptors[-1], program.memory_bytes)
                self.memory = started.enter_context(mmap.mmap(descriptors[-1], 0))
            descriptors += self._descriptors
            arguments = (program.module, os.getpid(), program.niceness, program.is_expendable, *descriptors)
            code = f"import sys; sys.path[:] = {sys.path!r}; from agent.child_process import run; run{arguments!r}"
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=self._log,  # what libraries print is no output of the agent
                stderr=self._log,
                pass_fds=descriptors,
                env=self._environment,
                start_new_session=True,
            )
        started.callback(self._end, self._process)
        self.send(self._order)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if self._program.grace_s:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(self._program.grace_s)
        self.kill()
        with suppress(subprocess.TimeoutExpired):  # it hangs inside the kernel, where nothing can end it
            process.wait(_KILLED_WITHIN_S)

    def _how_it_ended(self) -> str:
        assert self._process is not None  # noqa: S101 - after enter
        try:
            code = self._process.wait(_KILLED_WITHIN_S)
        except subprocess.TimeoutExpired:
            return f"{self._name} has closed its connection"
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"{self._name} {how}"


def run(module: str, parent: int, niceness: int, is_expendable: bool, *descriptors: int) -> None:  # noqa: FBT001 - called by `ChildProcess`
    """In the child: run ``main`` of a module."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has died already
        os._exit(1)
    lower_priority(niceness)
    if is_expendable:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
    for descriptor in descriptors:  # what a driver starts must not keep our socket open
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - takes no keyword
    sys.excepthook = _print_crash
    with socket.socket(fileno=descriptors[0]) as to_parent:
        order = json.loads(to_parent.recv(LONGEST_MESSAGE_BYTES))
        importlib.import_module(module).main(order, to_parent, *descriptors[1:])
    os._exit(0)  # what drivers do at a regular end is no concern of ours, and some crash


def lower_priority(niceness: int) -> None:
    """Give this process, which leads a session of its own, a niceness; a sandbox may forbid it."""
    with suppress(OSError):
        os.nice(niceness)
    # Linux with autogroups compares niceness only within a session; a session as a whole has a niceness of its own.
    for _ in range(_AUTOGROUP_ATTEMPTS):
        try:
            _AUTOGROUP.write_text(f"{niceness}")
        except BlockingIOError:  # noqa: PERF203 - another process has just changed its own
            time.sleep(_AUTOGROUP_AGAIN_S)
        except OSError:  # there are no autogroups
            return
        else:
            return


def _print_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback, indented and escaped: what libraries say about cameras and files must not pass for a log."""
    lines = "".join(traceback.format_exception(kind, error, trace)).rstrip("\n").split("\n")
    sys.stderr.write("".join(f"  {printable(line)}\n" for line in lines))


def peak_memory_mib(pid: int) -> float | None:
    """The most memory that a process ever had resident; None if it is gone, or the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(sizes[0]) / 1024 if sizes else None
