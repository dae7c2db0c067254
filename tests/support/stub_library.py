"""Shared libraries that hold nothing, made without a compiler: NVIDIA's bindings load against them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_ADDRESS = b"\xff" * 8
# ELF's number of the machine, a function that returns null, and one that jumps to an address.
_MACHINES = {
    "x86_64": (62, bytes.fromhex("31c0c3"), b"\x48\xb8" + _ADDRESS + b"\xff\xe0"),
    "aarch64": (183, bytes.fromhex("000080d2c0035fd6"), bytes.fromhex("5000005800021fd6") + _ADDRESS),
}
_HEADER, _PROGRAM_HEADER, _SYMBOL, _PAGE = 64, 56, 24, 0x10000
_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK = 1, 2, 0x6474E551
_READ, _WRITE, _EXECUTE = 4, 2, 1
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_SYMENT, _DT_SONAME = 4, 5, 6, 10, 11, 14
_GLOBAL_FUNCTION = 0x12
_SHARED_OBJECT = 3


def stub_library(soname: str, functions: Sequence[str], machine: str, goes_to: int | None = None) -> bytes:
    """A 64-bit ELF library with functions that return null, or jump to an address.

    One segment to read and execute, one for the dynamic section, which the loader writes to.
    """
    number, code, jump = _MACHINES[machine]
    if goes_to is not None:
        code = jump.replace(_ADDRESS, struct.pack("<Q", goes_to))
    names = _Names()
    soname_at = names.add(soname)
    symbols_at = _HEADER + 4 * _PROGRAM_HEADER
    count = len(functions) + 1
    code_at = symbols_at + count * _SYMBOL
    symbols = bytes(_SYMBOL) + b"".join(
        struct.pack("<IBBHQQ", names.add(function), _GLOBAL_FUNCTION, 0, 1, code_at, len(code))
        for function in functions
    )
    hash_at = code_at + 16
    # One bucket: a chain from the last symbol down to the first.
    hashes = struct.pack(f"<{3 + count}I", 1, count, count - 1, 0, *range(count - 1))
    names_at = hash_at + len(hashes)
    text_size = names_at + len(names.content)
    entries = {
        _DT_SONAME: soname_at,
        _DT_HASH: hash_at,
        _DT_STRTAB: names_at,
        _DT_SYMTAB: symbols_at,
        _DT_STRSZ: len(names.content),
        _DT_SYMENT: _SYMBOL,
        0: 0,
    }
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries.items())
    headers = [
        (_PT_LOAD, _READ | _EXECUTE, 0, text_size, _PAGE),
        (_PT_LOAD, _READ | _WRITE, _PAGE, len(dynamic), _PAGE),
        (_PT_DYNAMIC, _READ | _WRITE, _PAGE, len(dynamic), 8),
        (_PT_GNU_STACK, _READ | _WRITE, 0, 0, 16),
    ]
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(b"\x7fELF\2\1\1", _SHARED_OBJECT, number, 1, 0, _HEADER, 0, 0),
        *(_HEADER, _PROGRAM_HEADER, len(headers), 64, 0, 0),
    )
    header += b"".join(
        struct.pack("<IIQQQQQQ", kind, rights, at, at, at, size, size, alignment)
        for kind, rights, at, size, alignment in headers
    )
    text = header + symbols + code.ljust(16, b"\0") + hashes + names.content
    assert len(text) == text_size
    return text.ljust(_PAGE, b"\0") + dynamic


@dataclass
class _Names:
    content: bytes = b"\0"

    def add(self, name: str) -> int:
        """Its place."""
        at = len(self.content)
        self.content += name.encode() + b"\0"
        return at
