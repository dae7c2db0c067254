"""What the process of a set-up is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupOrder:
    """What is set up.

    Attributes:
        config: The configuration to write; what it has already is what the set-up begins with.
        token: Required for everything.
        token_file: Where it is; the station's page takes it over.
        host: Address of the page, now and later.
        port: Its port.
        names: Host names that browsers may use, besides addresses and ``localhost``.
        first: Keys that a new set-up begins with.
    """

    config: str
    token: str
    token_file: str
    host: str
    port: int
    names: list[str]
    first: dict[str, Any]
