"""A probe in a process of its own: if it hangs or crashes, that is a finding, and the doctor continues."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from agent.camera.shown_source import without_passwords
from agent.child_process import ChildProcess, ChildProgram
from agent.doctor.finding import Finding
from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

_PROGRAM = ChildProgram(module=__name__, failure=ShiftwatchError)


@dataclass(frozen=True, slots=True)
class Check:
    """A probe, and what to do when it does not answer.

    Attributes:
        name: What it examines.
        probe: A function at the top level of a module; its arguments and its findings' figures are JSON.
        time_limit_s: It is killed after this time.
        remedy: What to do when it hangs or crashes.
    """

    name: str
    probe: Callable[..., Iterable[Finding]]
    time_limit_s: float
    remedy: str

    def findings(self, **arguments: str | float | None) -> list[Finding]:
        """Findings of the probe; a single fault if it hangs or crashes."""
        order = [self.probe.__module__, self.probe.__qualname__, arguments]
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            os.fdopen(os.memfd_create("probe-log"), "r+b") as log,
        ):
            environment = {"TMPDIR": folder}
            try:
                with ChildProcess(_PROGRAM, "the probe", order, environment=environment, log=log.fileno()) as process:
                    answer = process.receive(self.time_limit_s)
            except ShiftwatchError as error:
                log.seek(0)
                printed = log.read().decode(errors="replace").strip().splitlines() or ["it printed nothing"]
                last = without_passwords(printed[-1].strip())
                return [Finding(self.name, "fault", f"{error.what}: {last}", self.remedy)]
        if answer is None:
            return [Finding(self.name, "fault", f"no answer within {self.time_limit_s:g} s", self.remedy)]
        return [Finding(**finding) for finding in json.loads(answer)]


def main(order: tuple[str, str, dict[str, Any]], to_doctor: socket.socket) -> None:
    """In the new process: run the probe, and answer."""
    module, name, arguments = order
    findings = getattr(importlib.import_module(module), name)(**arguments)
    to_doctor.sendall(json.dumps([asdict(finding) for finding in findings]).encode())
