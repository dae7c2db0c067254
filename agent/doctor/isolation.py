"""A probe in a process of its own: one that hangs or crashes is a finding, and not the end of the doctor."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from agent.doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_KILLED_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """A probe, and what to say when it does not come back.

    Attributes:
        name: What it looks at.
        probe: A function at the top level of a module; its arguments and figures are what JSON has.
        time_limit_s: It is killed when this is over.
        remedy: What to do when it hangs or crashes.
    """

    name: str
    probe: Callable[..., Iterable[Finding]]
    time_limit_s: float
    remedy: str

    def ask(self, **arguments: str | float | None) -> list[Finding]:
        """Findings of the probe; a single fault when it hangs or crashes."""
        question = json.dumps([self.probe.__module__, self.probe.__qualname__, arguments])
        code = f"import sys; sys.path[:] = {sys.path!r}; from agent.doctor.isolation import answer; answer()"
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-c", code, question],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, "TMPDIR": folder},
                start_new_session=True,
            )
            try:
                out, err = process.communicate(timeout=self.time_limit_s)
            except subprocess.TimeoutExpired:
                return [Finding(self.name, "fault", f"no answer within {self.time_limit_s:g} s", self.remedy)]
            finally:
                _end(process)
        if process.returncode:
            return [Finding(self.name, "fault", _how_it_ended(process.returncode, err), self.remedy)]
        return [Finding(**finding) for finding in json.loads(out)]


def _end(process: subprocess.Popen[str]) -> None:
    """Kill it with all that it started; what hangs inside the kernel cannot be killed and is left behind."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_KILLED_WITHIN_S)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _how_it_ended(code: int, err: str) -> str:
    said = err.strip().splitlines()[-1:] or ["it said nothing"]
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else "failed"
    return f"the probe {how}: {said[0]}"


def answer() -> None:
    """In the new process: answer the question in the arguments, on the standard output."""
    module, name, arguments = json.loads(sys.argv[1])
    # What libraries print must not mix with the answer.
    answers = os.dup(1)
    os.dup2(2, 1)
    findings = getattr(importlib.import_module(module), name)(**arguments)
    with os.fdopen(answers, "w") as out:
        json.dump([asdict(finding) for finding in findings], out)
    os._exit(0)  # what drivers do at a regular end is no concern of ours, and some crash
