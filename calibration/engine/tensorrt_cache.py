"""Engines built on this device, kept in a folder beside the bundle.

``engine.plan``    the serialised engine
``engine.json``    what it was built for, and its SHA-256: written last, so that it never speaks of half an engine
``timings.cache``  speeds of layers, which make the next build quicker

All of it may be deleted at any time: it is built again.
"""

from __future__ import annotations

import fcntl
import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
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
    """What an engine is built for: it runs nowhere else, and is right for nothing else.

    Attributes:
        network: Identity of the ONNX network.
        tensorrt: Its version, all of it.
        gpu: Name of the GPU.
        compute_capability: Of the GPU.
        options: Of the build.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str
    tensorrt: str
    gpu: str
    compute_capability: str
    options: dict[str, int]

    def differences(self, other: Key) -> list[str]:
        """What is not the same in the other, in words."""
        mine, others = self.model_dump(), other.model_dump()
        return [
            f"{name} was {_short(mine[name])}, is {_short(others[name])}" for name in mine if mine[name] != others[name]
        ]


class Record(BaseModel):
    """The content of ``engine.json``.

    Attributes:
        key: What the engine is for.
        plan_sha256: Of ``engine.plan``.
        mapped_ms: Time of a frame with mapped buffers; None where it was not measured.
        copied_ms: The same with copied buffers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    key: Key
    plan_sha256: str
    mapped_ms: float | None = None
    copied_ms: float | None = None

    @property
    def mapped(self) -> bool:
        """Mapped buffers were measured to be quicker."""
        return self.mapped_ms is not None and self.copied_ms is not None and self.mapped_ms < self.copied_ms


@dataclass(frozen=True, slots=True)
class Cached:
    """An engine that fits."""

    plan: bytes
    record: Record


@dataclass(frozen=True, slots=True)
class Miss:
    """No engine fits, and why."""

    reason: str


class EngineFolder:
    """The folder; it need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def options(self) -> dict[str, int] | None:
        """Options of the kept engine, whatever it is for; None where there is none."""
        try:
            return self._record().key.options
        except (OSError, ValidationError):
            return None

    def find(self, key: Key) -> Cached | Miss:
        """The engine for exactly this network, TensorRT, GPU and options, if it is there and whole."""
        try:
            record = self._record()
            differences = record.key.differences(key)
            if differences:
                return Miss("; ".join(differences))
            plan = (self.path / PLAN).read_bytes()
        except FileNotFoundError:
            return Miss(f"there is none yet in {self.path}")
        except (OSError, ValidationError) as error:
            return Miss(f"that in {self.path} cannot be read: {str(error).splitlines()[0]}")
        if hashlib.sha256(plan).hexdigest() != record.plan_sha256:
            return Miss(f"{self.path / PLAN} is damaged (its SHA-256 differs)")
        return Cached(plan, record)

    def keep(self, cached: Cached) -> None:
        """Replace the engine that is there.

        Raises:
            StorageError: No room or no permission; the folder then holds the old engine or none that fits.
        """
        with self._storable():
            replace_file(self.path / PLAN, cached.plan)
            replace_file(self.path / RECORD, cached.record.model_dump_json(indent=2).encode())

    def timings(self) -> bytes:
        """Speeds of layers from earlier builds; nothing where there are none."""
        try:
            return (self.path / TIMINGS).read_bytes()
        except OSError:
            return b""

    def keep_timings(self, timings: bytes) -> None:
        """Replace them.

        Raises:
            StorageError: No room or no permission.
        """
        with self._storable():
            replace_file(self.path / TIMINGS, timings)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One build at a time: two would share the memory and spoil each other's timings. Waits for the other.

        Raises:
            StorageError: The folder cannot be written; told before minutes are spent on a build.
        """
        with self._storable():
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / _LOCK).open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _record(self) -> Record:
        return Record.model_validate_json((self.path / RECORD).read_bytes())

    @contextmanager
    def _storable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                what=f"cannot keep the engine in {self.path.absolute()}: {error.strerror}",
                remedy="make room on that disk, or give this user the right to write there",
            ) from error


def plan_digest(plan: bytes) -> str:
    """What stands in the record."""
    return hashlib.sha256(plan).hexdigest()


def _short(value: object) -> str:
    """A hash at a length that people compare."""
    text = str(value)
    return f"{text[:12]}..." if len(text) > 40 and " " not in text else text  # noqa: PLR2004 - a hash is longer
