"""The folder next to a bundle that keeps the TensorRT engine built for it.

``engine.plan``    the serialised engine
``engine.json``    what the engine was built for, and its SHA-256; written last, so it never describes half an engine
``timings.cache``  speeds of layers, which make the next build faster

The folder may be deleted at any time: the engine is then rebuilt.
"""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from calibration.atomic_file import replace_file
from calibration.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLAN = "engine.plan"
RECORD = "engine.json"
TIMINGS = "timings.cache"
_LOCK = "lock"


class Key(BaseModel):
    """What an engine was built for; it cannot be used for anything else. ``network`` is `Source.identity`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str
    tensorrt: str
    gpu: str
    compute_capability: str
    options: dict[str, int]

    def differences(self, other: Key) -> list[str]:
        """Each value that differs in the other key, in words."""
        before, now = self.model_dump(), other.model_dump()
        return [
            f"{name} was {_short(before[name])}, is {_short(now[name])}" for name in now if before[name] != now[name]
        ]


class Record(BaseModel):
    """The content of ``engine.json``, with the time of one frame with mapped and copied buffers if measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    key: Key
    plan_sha256: str
    mapped_ms: float | None = None
    copied_ms: float | None = None

    @property
    def mapped(self) -> bool:
        """Whether mapped buffers were measured to be faster."""
        return self.mapped_ms is not None and self.copied_ms is not None and self.mapped_ms < self.copied_ms


@dataclass(frozen=True, slots=True)
class Cached:
    """A kept engine that can be used."""

    plan: bytes
    record: Record


class EngineFolder:
    """The folder, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def options(self) -> dict[str, int] | None:
        """Build options of the kept engine, whatever it was built for; None without one."""
        try:
            return self._record().key.options
        except (OSError, ValidationError):
            return None

    def find(self, key: Key) -> Cached | str:
        """The undamaged engine for exactly this network, TensorRT, GPU and options; or the reason why there is none."""
        try:
            record = self._record()
            differences = record.key.differences(key)
            if differences:
                return "; ".join(differences)
            plan = (self.path / PLAN).read_bytes()
        except FileNotFoundError:
            return f"no engine in {self.path} yet"
        except (OSError, ValidationError) as error:
            return f"the engine in {self.path} cannot be read: {str(error).splitlines()[0]}"
        if plan_digest(plan) != record.plan_sha256:
            return f"{self.path / PLAN} is damaged (its SHA-256 differs)"
        return Cached(plan, record)

    def keep(self, cached: Cached) -> None:
        """Write the engine, replacing the one before.

        Raises:
            StorageError: The disk is full or not writable. The folder then holds the old engine or no usable one.
        """
        with self._storage_errors():
            replace_file(self.path / PLAN, cached.plan)
            replace_file(self.path / RECORD, cached.record.model_dump_json(indent=2).encode())

    def timings(self) -> bytes:
        """Speeds of layers from earlier builds; empty without any."""
        try:
            return (self.path / TIMINGS).read_bytes()
        except OSError:
            return b""

    def keep_timings(self, timings: bytes) -> None:
        """Write the speeds of layers, replacing those before.

        Raises:
            StorageError: The disk is full or not writable.
        """
        with self._storage_errors():
            replace_file(self.path / TIMINGS, timings)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Wait until no other build runs, then lock: two builds would compete for memory and spoil their timings.

        Raises:
            StorageError: The folder is not writable. Raised before minutes are spent on a build.
        """
        with self._storage_errors():
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / _LOCK).open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _record(self) -> Record:
        return Record.model_validate_json((self.path / RECORD).read_bytes())

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                what=f"cannot keep the engine in {self.path.absolute()}: {error.strerror}",
                remedy="free space on that disk, or give this user permission to write there",
            ) from error


def plan_digest(plan: bytes) -> str:
    """SHA-256 of a serialised engine, as in its record."""
    return sha256(plan).hexdigest()


def _short(value: object) -> str:
    """Shorten a hash to a length that people can compare."""
    text = str(value)
    return f"{text[:12]}..." if len(text) > 40 and " " not in text else text  # noqa: PLR2004 - a hash is longer
