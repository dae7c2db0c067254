"""Runs a program under the system call filter of a unit, as systemd would: ``python confined.py UNIT PROGRAM...``.

Applied are SystemCallFilter=, MemoryDenyWriteExecute= and RestrictAddressFamilies=, with NoNewPrivileges.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

SECCOMP = "libseccomp.so.2"
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_EQ, _MASKED_EQ = 4, 7
_WRITE, _EXECUTE, _SHM_EXEC = 2, 4, 0o100000


class _Comparison(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def settings(unit: Path) -> list[tuple[str, str]]:
    """The lines of a unit, in order."""
    return re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE)


def system_calls(unit: Path) -> set[str]:
    """What the lines of SystemCallFilter= leave."""
    allowed: set[str] = set()
    for text in (value for key, value in settings(unit) if key == "SystemCallFilter"):
        named = {call for group in text.lstrip("~").split() for call in _members(group)}
        allowed = allowed - named if text.startswith("~") else allowed | named
    # systemd always allows what it needs itself to start the program.
    return allowed | {"execve", "exit", "exit_group", "rt_sigreturn", "sigreturn", "getrlimit", "time", "clock_gettime"}


def _members(group: str) -> set[str]:
    if not group.startswith("@"):
        return {group}
    command = ["systemd-analyze", "syscall-filter", group]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - systemd's own
    names = [line.strip() for line in listed.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return {call for name in names for call in _members(name)}


class Filter:
    """One of libseccomp's; the first that refuses a call decides."""

    def __init__(self, default: int) -> None:
        self._library = ctypes.CDLL(SECCOMP)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(default)))

    def add(self, action: int, name: str, *comparisons: _Comparison) -> None:
        """Calls that another kind of processor has are passed over."""
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        array = (_Comparison * len(comparisons))(*comparisons)
        code = ctypes.c_uint32(action)
        added = self._library.seccomp_rule_add_array(self._context, code, number, len(comparisons), array)
        assert added == 0 or number < 0, (name, added)

    def load(self) -> None:
        loaded = self._library.seccomp_load(self._context)
        assert loaded == 0, loaded


def confine(unit: Path) -> None:
    """From here on, for this process and those it starts."""
    details = Filter(_ALLOW)
    if ("MemoryDenyWriteExecute", "yes") in settings(unit):
        details.add(_REFUSE, "mmap", _Comparison(2, _MASKED_EQ, _WRITE | _EXECUTE, _WRITE | _EXECUTE))
        details.add(_REFUSE, "mprotect", _Comparison(2, _MASKED_EQ, _EXECUTE, _EXECUTE))
        details.add(_REFUSE, "pkey_mprotect", _Comparison(2, _MASKED_EQ, _EXECUTE, _EXECUTE))
        details.add(_REFUSE, "shmat", _Comparison(2, _MASKED_EQ, _SHM_EXEC, _SHM_EXEC))
    families = dict(settings(unit))["RestrictAddressFamilies"].split()
    for family in socket.AddressFamily:
        if family.name not in families:
            details.add(_REFUSE, "socket", _Comparison(0, _EQ, family.value, 0))
    details.load()
    calls = Filter(_REFUSE)  # loaded last: it forbids to load another
    for name in system_calls(unit):
        calls.add(_ALLOW, name)
    calls.load()


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - that is its purpose
