"""The folder next to a bundle that keeps the engine that TensorRT, or TensorRT for RTX, has built for it.

``engine.plan``    the serialised engine
``engine.json``    what the engine was built for, and its SHA-256; written last, so it never describes half an engine
``timings.cache``  speeds of layers, which make TensorRT's next build faster
``kernels.cache``  what TensorRT for RTX has compiled for the GPU, which makes the next start faster

The folder may be deleted at any time: the engine is then rebuilt.
"""

from __future__ import annotations

import errno
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
KERNELS = "kernels.cache"
_LOCK = "lock"

ANY = "any"
"""In a key: the engine was built ahead of time, for whatever GPU the library supports."""


class Key(BaseModel):
    """What an engine was built for; it cannot be used for anything else.

    Attributes:
        network: `Source.identity`.
        tensorrt: Version of the library.
        gpu: Name of the GPU, or `ANY`.
        compute_capability: That of the GPU; several joined by commas, or `ANY`, of an engine built ahead of time.
        options: Options of the build.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str
    tensorrt: str
    gpu: str
    compute_capability: str
    options: dict[str, int]

    @property
    def compute_capabilities(self) -> tuple[str, ...]:
        """Those that it was built for; empty for any."""
        return () if self.compute_capability == ANY else tuple(self.compute_capability.split(", "))

    def serves(self, compute_capability: str) -> bool:
        """Whether a GPU of this compute capability is among them."""
        return not self.compute_capabilities or compute_capability in self.compute_capabilities

    def differences(self, other: Key) -> list[str]:
        """Each value that differs in the other key, in words."""
        before, now = self.model_dump(), other.model_dump()
        return [
            f"{name} was {_short(before[name])}, is {_short(now[name])}" for name in now if before[name] != now[name]
        ]


class Record(BaseModel):
    """The content of ``engine.json``, with what was measured.

    Attributes:
        body: See `tensorrt_head.body_digest`.
        mapped_ms: Time of one frame with mapped buffers.
        copied_ms: With copied ones.
        compiled_ms: Time to load the engine when the GPU's kernels had to be compiled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    key: Key
    plan_sha256: str
    body: str | None = None
    mapped_ms: float | None = None
    copied_ms: float | None = None
    compiled_ms: float | None = None

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

    def key(self) -> Key | None:
        """What the kept engine was built for, whatever that is; None without one."""
        try:
            return self.record().key
        except (OSError, ValidationError):
            return None

    def find(self, key: Key) -> Cached | str:
        """The undamaged engine for exactly this network, TensorRT, GPU and options; or the reason why there is none."""
        try:
            record = self.record()
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
            (self.path / KERNELS).unlink(missing_ok=True)
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

    def kernels(self) -> bytes:
        """What was compiled for the kept engine; empty without any. The library notices what does not fit the GPU."""
        try:
            return (self.path / KERNELS).read_bytes()
        except OSError:
            return b""

    def keep_kernels(self, kernels: bytes, record: Record) -> None:
        """Write what was compiled for the kept engine, and how long that took.

        Raises:
            StorageError: The disk is full or not writable.
        """
        with self._storage_errors():
            found = self.find(record.key)
            if isinstance(found, str) or found.record.plan_sha256 != record.plan_sha256:
                raise FileNotFoundError(errno.ENOENT, "the engine itself is not there")
            replace_file(self.path / KERNELS, kernels)
            replace_file(self.path / RECORD, record.model_dump_json(indent=2).encode())

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

    def record(self) -> Record:
        """What is kept.

        Raises:
            OSError: Nothing is, or it cannot be read.
            ValidationError: It is damaged.
        """
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
