"""The bundle: a folder with the result of a calibration, verified whenever it is opened.

``manifest.json``    how it was made, and the SHA-256 of every other file
``manifest.sha256``  the SHA-256 of the manifest, as ``sha256sum`` writes it
``network.onnx``     the fused network
``moments.npz``      the statistics, so that a device can add its own
``reference.npz``    reference statistics of the good frames, golden frames with their scores, scores of good images

It is written to a temporary folder, flushed to disk and then renamed, so that it exists whole or not at all. It never
changes; its identity is the hash of its manifest.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from calibration.atomic_file import flush_folder, write_flushed
from calibration.bundle.manifest import SCHEMA_VERSION, Manifest
from calibration.bundle.preprocess_record import preprocess_from_record
from calibration.errors import BundleError, ScoreMismatchError, StorageError
from calibration.statistics.threshold import WorkingPoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from calibration.engine.contract import Engine
    from calibration.imaging.preprocess import Preprocess

MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
NETWORK = "network.onnx"
MOMENTS = "moments.npz"
REFERENCE = "reference.npz"
_CHUNK_BYTES = 2**20
_NEGLIGIBLE = 0.01


@dataclass(frozen=True)
class GoldenFrames:
    """Frames with known scores, which every engine must reproduce.

    Attributes:
        frames: (n, height, width, 3), uint8, preprocessed.
        scores: (n,), computed in NumPy from the backbone's features.
    """

    frames: NDArray[np.uint8]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose files match their hashes.

    Attributes:
        path: Its folder.
        manifest: Content of ``manifest.json``.
        identity: SHA-256 of the manifest, and thereby of all files.
    """

    path: Path
    manifest: Manifest
    identity: str

    @property
    def network(self) -> Path:
        """Path of the fused network."""
        return self.path / NETWORK

    @cached_property
    def preprocess(self) -> Preprocess:
        """The preprocessing, from frame to network input."""
        return preprocess_from_record(self.manifest.preprocess, lambda name: _arrays(self.path / REFERENCE, name)[name])

    @property
    def working_point(self) -> WorkingPoint:
        """The threshold and its false-reject rate."""
        record = self.manifest.working_point
        return WorkingPoint(**record.model_dump(exclude={"folds", "chi_square"}), images=self.manifest.images.count)

    def golden(self) -> GoldenFrames:
        """The golden frames and their scores."""
        arrays = self.reference()
        return GoldenFrames(arrays["golden_frames"], arrays["golden_scores"])

    def reference(self) -> dict[str, NDArray[Any]]:
        """All arrays of ``reference.npz``."""
        return _arrays(self.path / REFERENCE)

    def moments(self) -> dict[str, NDArray[Any]]:
        """The statistics that a device can update; for ``mean_shift`` the arrays that ``Moments.unpacked`` takes."""
        return _arrays(self.path / MOMENTS)


def _arrays(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    """The named arrays, or all."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in names or archive.files}


def open_bundle(path: Path) -> Bundle:
    """Open a bundle and verify the hash of every file.

    Raises:
        BundleError: Missing, incomplete, changed, or made by newer software.
    """
    with _readable(path / MANIFEST):
        content = (path / MANIFEST).read_bytes()
    manifest = _parsed_manifest(path, content)
    with _readable(path / SEAL):
        written = (path / SEAL).read_bytes()
    if written != seal(content):  # an altered threshold would still be valid
        raise _altered(path / MANIFEST, f"its SHA-256 is not that in {SEAL}")
    for name, digest in manifest.files.items():
        if _sha256(path / name) != digest:
            raise _altered(path / name, "its SHA-256 differs")
    missing = {NETWORK, MOMENTS, REFERENCE} - set(manifest.files)
    if missing:
        raise BundleError(
            what=f"{path / MANIFEST} does not list {', '.join(sorted(missing))}", remedy="calibrate again"
        )
    return Bundle(path, manifest, hashlib.sha256(content).hexdigest())


def _parsed_manifest(path: Path, content: bytes) -> Manifest:
    try:
        raw = json.loads(content)
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise BundleError(
                what=f"{path} is a bundle of schema {version}; this software reads up to {SCHEMA_VERSION}",
                remedy="update shiftwatch on this machine: pip install --upgrade shiftwatch",
            )
        return Manifest.model_validate(raw)
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise BundleError(
            what=f"{path / MANIFEST} is damaged: {reason}", remedy="copy the bundle again from where it was made"
        ) from error


def _altered(path: Path, reason: str) -> BundleError:
    return BundleError(
        what=f"{path} is not what calibration wrote ({reason})",
        remedy="copy the bundle again from where it was made, or calibrate again",
    )


def seal(manifest: bytes) -> bytes:
    """Content of ``manifest.sha256``."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def _sha256(path: Path) -> str:
    """SHA-256 of a file, read in chunks because a device has little memory."""
    digest = hashlib.sha256()
    with _readable(path), path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(
            what=f"cannot read {path.absolute()}: {error.strerror}",
            remedy="use the folder that `shiftwatch-calibrate fit` wrote",
        ) from error


@dataclass(frozen=True, slots=True)
class GoldenCheck:
    """Expected and actual score of a golden frame.

    Attributes:
        threshold: Of the bundle. Differences are relative to at least a hundredth of it: smaller scores are rounding.
    """

    expected: float
    actual: float
    threshold: float = 0.0

    @property
    def deviation(self) -> float:
        """Relative difference."""
        scale = max(abs(self.expected), _NEGLIGIBLE * self.threshold, 1e-12)
        return abs(self.actual - self.expected) / scale


def check_golden(bundle: Bundle, engine: Engine) -> list[GoldenCheck]:
    """Score the golden frames with an engine, and reject it if the scores differ.

    Raises:
        ScoreMismatchError: A score is off by more than the tolerance of the manifest and that of the engine.
    """
    checks = golden_checks(bundle.golden(), bundle.manifest.working_point.threshold, engine)
    tolerance = max(bundle.manifest.golden_tolerance, engine.tolerance)
    refuse_mismatch(checks, tolerance, f"{engine.backend} on this device")
    return checks


def golden_checks(golden: GoldenFrames, threshold: float, engine: Engine) -> list[GoldenCheck]:
    """Score golden frames with an engine."""
    return [
        GoldenCheck(float(expected), engine(frame).score, threshold)
        for frame, expected in zip(golden.frames, golden.scores, strict=True)
    ]


def refuse_mismatch(checks: list[GoldenCheck], tolerance: float, runner: str) -> None:
    """Raise ScoreMismatchError if any score is off by more than the tolerance, or not a number."""
    for number, check in enumerate(checks):
        if not check.deviation <= tolerance:
            raise ScoreMismatchError(
                what=f"{runner} scores golden frame {number} {check.actual:.6g}, but calibration scored it "
                f"{check.expected:.6g}; the difference exceeds the tolerance of {tolerance:g}",
                remedy="do not inspect with it; update the runtime, or calibrate again on this device",
            )


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle, completely or not at all.

    Args:
        path: Folder of the bundle, which must not exist.
        manifest: ``files`` is filled in here.
        files: Name -> content of the other files.

    Raises:
        StorageError: No space or no permission; nothing is left behind.
        BundleError: The folder exists.
    """
    refuse_existing(path)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    text = manifest.model_copy(update={"files": digests}).model_dump_json(indent=2).encode()
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        for name, content in {**files, MANIFEST: text, SEAL: seal(text)}.items():
            write_flushed(temporary / name, content)
        temporary.chmod(0o755)
        flush_folder(temporary)
        temporary.rename(path)
        flush_folder(path.parent)
    except OSError as error:
        raise StorageError(
            what=f"cannot write the bundle {path.absolute()}: {error.strerror}",
            remedy="free disk space or choose another disk; nothing was left behind",
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)  # already gone if the rename succeeded
    return open_bundle(path)


def refuse_existing(path: Path) -> None:
    """Raise BundleError if the path exists: a bundle is never changed."""
    if path.exists():
        raise BundleError(
            what=f"{path.absolute()} already exists, and a bundle is never changed",
            remedy="use another name, or remove it first",
        )


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as the content of an .npz file."""
    buffer = io.BytesIO()
    savez: Any = np.savez  # its type mistakes names of arrays for options
    savez(buffer, **arrays)
    return buffer.getvalue()
