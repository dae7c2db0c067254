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
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from calibration.atomic_file import flush_folder, write_flushed
from calibration.bundle.bundle_files import altered, arrays_in, opened, refuse_external_weights, sha256
from calibration.bundle.golden_frames import GoldenFrames, highest_finite
from calibration.bundle.manifest import SCHEMA_VERSION, Manifest, ManifestVersion
from calibration.bundle.preprocess_record import preprocess_from_record
from calibration.bundle.reference_arrays import odd_array
from calibration.errors import BundleError, ScoreMismatchError, StorageError, install_newest
from calibration.statistics.forecast import FORECAST_ARRAYS, Forecast
from calibration.statistics.threshold import WorkingPoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from calibration.engine.contract import Engine
    from calibration.imaging.preprocess import Preprocess

MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
NETWORK = "network.onnx"
MOMENTS = "moments.npz"
REFERENCE = "reference.npz"
_NEGLIGIBLE = 0.01
_WITHIN_REACH = 100.0


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
        return preprocess_from_record(self.manifest.preprocess, lambda name: self._reference(name)[name])

    @property
    def working_point(self) -> WorkingPoint:
        """The threshold and its false-reject rate."""
        record = self.manifest.working_point
        return WorkingPoint(**record.model_dump(exclude={"folds", "chi_square"}), images=self.manifest.images.count)

    @property
    def forecast(self) -> Forecast | None:
        """What of synthetic defects the threshold finds; None if that was not measured.

        Raises:
            BundleError: As ``reference``.
        """
        if self.manifest.forecast is None:
            return None
        return Forecast.of(self._reference(*FORECAST_ARRAYS), self.working_point)

    def golden(self) -> GoldenFrames:
        """The golden frames and their scores.

        Raises:
            BundleError: They are not frames of the network's size, or prove nothing about a network.
        """
        arrays = self._reference("golden_frames", "golden_scores", "good_scores")
        golden = GoldenFrames(arrays["golden_frames"], arrays["golden_scores"])
        preprocess, threshold = self.manifest.preprocess, self.manifest.working_point.threshold
        problem = golden.why_unproving((preprocess.height, preprocess.width))
        if problem is None and threshold > _WITHIN_REACH * highest_finite(golden.scores, arrays["good_scores"]):
            problem = f"its scores are far below the threshold {threshold:g}, which no part can exceed"
        if problem:
            raise altered(self.path / REFERENCE, problem)
        return golden

    def reference(self) -> dict[str, NDArray[Any]]:
        """All arrays of ``reference.npz``, in the forms that ``reference_arrays`` lists.

        Raises:
            BundleError: One has another form, or the file is damaged.
        """
        return self._reference()

    def _reference(self, *names: str) -> dict[str, NDArray[Any]]:
        arrays = arrays_in(self.path / REFERENCE, *names)
        if problem := odd_array(arrays):
            raise altered(self.path / REFERENCE, problem)
        return arrays

    def moments(self) -> dict[str, NDArray[Any]]:
        """The statistics that a device can update; for ``mean_shift`` the arrays that ``Moments.unpacked`` takes."""
        return arrays_in(self.path / MOMENTS)


def open_bundle(path: Path) -> Bundle:
    """Open a bundle and verify the hash of every file.

    Raises:
        BundleError: Missing, incomplete, changed, or made by newer software.
    """
    with opened(path / MANIFEST) as file:
        content = file.read()
    manifest = _parsed_manifest(path, content)
    with opened(path / SEAL) as file:
        written = file.read()
    if written != seal(content):  # an altered threshold would still be valid
        raise altered(path / MANIFEST, f"its SHA-256 is not that in {SEAL}")
    _refuse_other_names(path, manifest)
    for name, digest in manifest.files.items():
        if sha256(path / name) != digest:
            raise altered(path / name, "its SHA-256 differs")
    refuse_external_weights(path / NETWORK)
    return Bundle(path, manifest, hashlib.sha256(content).hexdigest())


def _refuse_other_names(path: Path, manifest: Manifest) -> None:
    files = {NETWORK, MOMENTS, REFERENCE}
    if missing := files - set(manifest.files):
        raise BundleError(
            what=f"{path / MANIFEST} does not list {', '.join(sorted(missing))}", remedy="calibrate again"
        )
    if others := set(manifest.files) - files:
        raise altered(path / MANIFEST, f"it lists {min(others)!r:.100}, which is not a file of a bundle")


def _parsed_manifest(path: Path, content: bytes) -> Manifest:
    try:
        version = ManifestVersion.model_validate_json(content).schema_version
        if version > SCHEMA_VERSION:
            raise BundleError(
                what=f"{path} is a bundle of schema {version}; this software reads up to {SCHEMA_VERSION}",
                remedy=f"update Shiftwatch on this machine: {install_newest()}",
            )
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise BundleError(
            what=f"{path / MANIFEST} is damaged: {_first_problem(error)}",
            remedy="copy the bundle again from where it was made",
        ) from error


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(map(str, first["loc"])) or "the file"
    return f"{key!a:.100}: {first['msg']!a:.200}"


def seal(manifest: bytes) -> bytes:
    """Content of ``manifest.sha256``."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


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
