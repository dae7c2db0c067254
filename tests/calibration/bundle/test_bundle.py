"""Opening a bundle reveals any damage, and writing is all or nothing."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from calibration.bundle.bundle import (
    MANIFEST,
    MOMENTS,
    NETWORK,
    REFERENCE,
    SEAL,
    Bundle,
    GoldenCheck,
    check_golden,
    npz_bytes,
    open_bundle,
    refuse_existing,
    seal,
    write_bundle,
)
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import BundleError, EngineError, ScoreMismatchError, StorageError
from calibration.statistics.moments import Moments
from tests.support.washers import SIDE

if TYPE_CHECKING:
    from pathlib import Path

FILES = (NETWORK, MOMENTS, REFERENCE)


def flip(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def change_manifest(bundle: Bundle, **changes: object) -> None:
    path = bundle.path / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    (bundle.path / SEAL).write_bytes(seal(path.read_bytes()))


def replace(bundle: Bundle, name: str, content: bytes) -> None:
    """Replace a file and its hash in the manifest."""
    (bundle.path / name).write_bytes(content)
    change_manifest(bundle, files={**bundle.manifest.files, name: hashlib.sha256(content).hexdigest()})


def files_of(bundle: Bundle) -> dict[str, bytes]:
    return {name: (bundle.path / name).read_bytes() for name in FILES}


def test_a_bundle_opens_as_it_was_written(learnt: Bundle) -> None:
    again = open_bundle(learnt.path)
    assert again == learnt
    assert {path.name for path in learnt.path.iterdir()} == {MANIFEST, SEAL, *FILES}
    assert again.identity == hashlib.sha256((learnt.path / MANIFEST).read_bytes()).hexdigest()


def test_the_manifest_lists_the_hash_of_every_other_file(learnt: Bundle) -> None:
    assert learnt.manifest.files == {
        name: hashlib.sha256(content).hexdigest() for name, content in files_of(learnt).items()
    }


def test_a_bundle_written_again_elsewhere_has_the_same_identity(learnt: Bundle, tmp_path: Path) -> None:
    assert write_bundle(tmp_path / "copy", learnt.manifest, files_of(learnt)).identity == learnt.identity


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.9999])
def test_one_flipped_bit_is_noticed_and_the_file_named(bundle: Bundle, name: str, share: float) -> None:
    flip(bundle.path / name, int(share * (bundle.path / name).stat().st_size), bit=int(share * 8) % 8)
    with pytest.raises(BundleError, match=f"{name} is not what calibration wrote"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_or_longer_file_is_noticed(bundle: Bundle, name: str) -> None:
    content = (bundle.path / name).read_bytes()
    for changed in (content[:-1], content + b"\0", b""):
        (bundle.path / name).write_bytes(changed)
        with pytest.raises(BundleError, match=name):
            open_bundle(bundle.path)


@pytest.mark.parametrize("name", [MANIFEST, SEAL])
def test_a_manifest_or_its_hash_with_a_bit_changed_is_refused(bundle: Bundle, name: str) -> None:
    path = bundle.path / name
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        flip(path, place, bit=place % 8)
        with pytest.raises(BundleError):
            open_bundle(bundle.path)
        path.write_bytes(whole)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"{", b"\xff\xfe", b'{"schema_version": 1}'])
def test_an_invalid_manifest_is_refused(bundle: Bundle, content: bytes) -> None:
    (bundle.path / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json is damaged"):
        open_bundle(bundle.path)


def test_a_newer_bundle_asks_for_an_update(bundle: Bundle) -> None:
    change_manifest(bundle, schema_version=2, something_new=True)
    with pytest.raises(BundleError, match=r"schema 2.*\n.*update Shiftwatch"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("name", [MANIFEST, SEAL, *FILES])
def test_a_missing_file_is_named(bundle: Bundle, name: str) -> None:
    (bundle.path / name).unlink()
    with pytest.raises(BundleError, match=f"cannot read .*{name}"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("name", FILES)
def test_a_manifest_that_does_not_list_a_file_is_refused(bundle: Bundle, name: str) -> None:
    change_manifest(bundle, files={other: digest for other, digest in bundle.manifest.files.items() if other != name})
    with pytest.raises(BundleError, match=f"does not list {name}"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("name", [MANIFEST, SEAL, *FILES])
@pytest.mark.parametrize("kind", ["link", "pipe", "huge"])
def test_only_regular_files_of_sane_sizes_are_read(bundle: Bundle, tmp_path: Path, name: str, kind: str) -> None:
    path = bundle.path / name
    moved = path.rename(tmp_path / name)
    if kind == "link":
        path.symlink_to(moved)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.touch()
        os.truncate(path, 2**42)  # sparse
    with pytest.raises(BundleError, match=f"{name} is not what calibration wrote"):
        open_bundle(bundle.path)


def test_a_manifest_that_lists_other_files_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"")
    change_manifest(bundle, files={**bundle.manifest.files, "../secret": hashlib.sha256(b"").hexdigest()})
    with pytest.raises(BundleError, match=r"lists '\.\./secret', which is not a file of a bundle"):
        open_bundle(bundle.path)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"schema_version": ' + b"9" * 6000 + b"}",
        b'{"created_at": "\\ud800"}',
        b'{"created_at": "' + b"x" * 70_000 + b'"}',
    ],
)
def test_odd_json_is_one_short_line_about_the_manifest(bundle: Bundle, content: bytes) -> None:
    (bundle.path / MANIFEST).write_bytes(content)
    (bundle.path / SEAL).write_bytes(seal(content))
    with pytest.raises(BundleError, match=r"manifest\.json is damaged") as refusal:
        open_bundle(bundle.path)
    assert len(refusal.value.what) < len(str(bundle.path)) + 400
    assert "\n" not in refusal.value.what


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("golden_tolerance", 0.0),
        ("golden_tolerance", 0.5),
        ("golden_tolerance", float("nan")),
        ("golden_tolerance", float("inf")),
        ("threshold", 0.0),
        ("threshold", -1.0),
        ("threshold", float("nan")),
        ("threshold", float("inf")),
        ("false_reject_rate", 0.0),
        ("interval", [0.0, float("nan")]),
        ("created_at", "yesterday"),
    ],
)
def test_a_threshold_or_tolerance_that_proves_nothing_is_refused(bundle: Bundle, key: str, value: object) -> None:
    point = bundle.manifest.working_point.model_dump()
    change_manifest(bundle, **({"working_point": {**point, key: value}} if key in point else {key: value}))
    with pytest.raises(BundleError, match=rf"manifest\.json is damaged: .*{key}"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("threshold", [1e12, 1e30, 1e308])
def test_a_threshold_that_nothing_exceeds_is_refused_when_the_network_is_checked(
    bundle: Bundle, threshold: float
) -> None:
    change_manifest(bundle, working_point={**bundle.manifest.working_point.model_dump(), "threshold": threshold})
    with OnnxRuntimeEngine(bundle.network, 1) as engine, pytest.raises(BundleError, match="no part can exceed"):
        check_golden(open_bundle(bundle.path), engine)


def _read(path: Path) -> None:
    bundle = open_bundle(path)
    bundle.golden()
    bundle.reference()


def _golden(frames: Any, scores: Any) -> dict[str, Any]:  # noqa: ANN401 - arrays of any form
    return {"golden_frames": frames, "golden_scores": scores}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (_golden(np.zeros((0, SIDE, SIDE, 3), np.uint8), np.zeros(0)), "0 golden frames"),
        (_golden(np.zeros((4, SIDE, SIDE, 3), np.uint8), np.arange(4.0)), "prove nothing"),
        (_golden(np.arange(4 * SIDE * SIDE * 3).reshape(4, SIDE, SIDE, 3).astype(np.uint8), np.ones(4)), "prove noth"),
        (_golden(np.zeros((4, 8, 8, 3), np.uint8), np.arange(4.0)), "not of 64x64 pixels"),
        (_golden(np.zeros((4, SIDE, SIDE, 3)), np.arange(4.0)), "golden_frames is float64"),
        (_golden(np.zeros((4, SIDE, SIDE, 3), np.uint8), np.arange(3.0)), "3 scores"),
        ({"good_scores": np.zeros(0)}, "good_scores"),
        ({"brightness": np.full((24, 3), -1.0)}, "brightness has values that no pixel has"),
        ({"good_scores": np.full(24, np.nan)}, "good_scores has values that are not finite"),
    ],
)
def test_golden_frames_that_prove_nothing_are_refused(bundle: Bundle, arrays: dict[str, Any], said: str) -> None:
    replace(bundle, REFERENCE, npz_bytes({**bundle.reference(), **arrays}))
    with pytest.raises(BundleError, match=f"{said}.*\n.*copy the bundle again"):
        _read(bundle.path)


def _header_that_lies(content: bytes) -> bytes:
    at = content.index(b"'shape': (")
    end = content.index(b")", at)
    return content[:at] + b"'shape': (9" + b"9" * (end - at - 11) + content[end:]


def test_an_array_that_says_it_is_larger_than_its_file_is_refused_before_memory_is_taken(bundle: Bundle) -> None:
    replace(bundle, MOMENTS, _header_that_lies(npz_bytes({"mean": np.zeros((10, 100_000), np.uint8)})))
    with pytest.raises(BundleError, match=r"moments\.npz is not what calibration wrote"):
        open_bundle(bundle.path).moments()


@pytest.mark.parametrize("kind", ["bomb", "pickle", "lie", "twice", "name", "text"])
def test_odd_archives_are_refused(bundle: Bundle, kind: str) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {
        "pickle": np.array([None]),
        "text": np.array([0x7FFFFFFF], np.uint32).view("<U1"),
    }
    one = npz_bytes({"mean": np.zeros(10)})
    with zipfile.ZipFile(io.BytesIO(one)) as archive:
        member = archive.read("mean.npy")
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if kind == "bomb" else zipfile.ZIP_STORED) as archive:
        archive.writestr("mean.npy", member.replace(b"(10,)", b"(99,)") if kind == "lie" else member + bytes(2**24))
    contents = {"bomb": buffer.getvalue(), "lie": buffer.getvalue(), "name": one[:-40]}
    with pytest.warns(UserWarning, match="Duplicate") if kind == "twice" else contextlib.nullcontext():
        contents["twice"] = _with_member_twice(member) if kind == "twice" else b""
    replace(bundle, MOMENTS, contents.get(kind) or npz_bytes({"mean": arrays[kind]}))
    with pytest.raises(BundleError, match=r"moments\.npz is not what calibration wrote"):
        open_bundle(bundle.path).moments()


def _with_member_twice(member: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("mean.npy", member)
        archive.writestr("mean.npy", member)
    return buffer.getvalue()


def test_an_array_that_is_not_there_is_named(bundle: Bundle) -> None:
    arrays = bundle.moments()
    del arrays["scatter"]
    replace(bundle, MOMENTS, npz_bytes(arrays))
    with pytest.raises(BundleError, match="lacks the array scatter"):
        Moments.unpacked(open_bundle(bundle.path).moments())


@pytest.mark.parametrize("location", ["weights", "../weights", "*/_ORT_MEM_ADDR_/*"])
def test_a_network_with_weights_in_another_file_is_refused(bundle: Bundle, location: str) -> None:
    model = onnx.load(bundle.network)
    tensor = model.graph.initializer[0]
    (bundle.path / "weights").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    replace(bundle, NETWORK, model.SerializeToString())
    with pytest.raises(BundleError, match=r"network\.onnx is not what .*1 of its weights lie in other files"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("change", ["size", "input"])
def test_a_network_that_takes_something_else_is_refused_before_it_runs(bundle: Bundle, change: str) -> None:
    model = onnx.load(bundle.network)
    if change == "size":
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**30
    else:
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "any"
    with (
        pytest.raises(EngineError, match="not one frame"),
        OnnxRuntimeEngine(model.SerializeToString(), 1),
    ):
        pass


def test_a_folder_that_is_not_a_bundle_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BundleError, match=r"(?s)cannot read.*fit"):
            open_bundle(path)


def test_golden_frames_score_as_calibrated(learnt: Bundle) -> None:
    with OnnxRuntimeEngine(learnt.network, 1) as engine:
        checks = check_golden(learnt, engine)
    assert len(checks) == 4
    assert max(check.deviation for check in checks) < 1e-4
    assert checks[-1].expected > learnt.manifest.working_point.threshold


@pytest.mark.parametrize("factor", [1.01, 0.99, float("nan")])
def test_a_score_other_than_the_calibrated_one_is_refused(bundle: Bundle, factor: float) -> None:
    arrays = bundle.reference()
    arrays["golden_scores"][2] *= factor
    replace(bundle, REFERENCE, npz_bytes(arrays))
    reopened = open_bundle(bundle.path)
    with (
        OnnxRuntimeEngine(reopened.network, 1) as engine,
        pytest.raises(ScoreMismatchError, match="golden frame 2"),
    ):
        check_golden(reopened, engine)


def test_an_engine_that_returns_nan_is_refused(learnt: Bundle) -> None:
    class Broken(OnnxRuntimeEngine):
        def _run(self, outputs: list[str] | None, frame: Any) -> list[Any]:  # noqa: ANN401 - as the engine has it
            return [np.full_like(each, np.nan) for each in super()._run(outputs, frame)]

    with Broken(learnt.network, 1) as engine, pytest.raises(ScoreMismatchError, match="golden frame 0 nan"):
        check_golden(learnt, engine)


def test_nothing_in_a_bundle_needs_pickle(learnt: Bundle) -> None:
    for name in (MOMENTS, REFERENCE):
        with np.load(learnt.path / name, allow_pickle=False) as archive:
            assert all(archive[key].dtype != object for key in archive.files)
    assert set(learnt.moments()) == {"count", "squares", "mean", "scatter"}
    assert {"golden_frames", "golden_scores", "good_scores", "brightness", "sharpness"} <= set(learnt.reference())


def test_a_device_can_add_to_the_moments(learnt: Bundle) -> None:
    moments = Moments.unpacked(learnt.moments())
    assert moments.count == learnt.manifest.images.count == 24
    moments.add(Moments.unpacked(learnt.moments()))
    assert moments.count == 48


@pytest.mark.parametrize("kind", ["folder", "file", "bundle"])
def test_an_existing_path_is_never_overwritten(bundle: Bundle, tmp_path: Path, kind: str) -> None:
    path = {"folder": tmp_path / "there", "file": tmp_path / "there", "bundle": bundle.path}[kind]
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for attempt in (lambda: refuse_existing(path), lambda: write_bundle(path, bundle.manifest, files_of(bundle))):
        with pytest.raises(BundleError, match="already exists"):
            attempt()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("failing", range(7))
@pytest.mark.parametrize(
    "reason", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"]
)
def test_an_interrupted_write_leaves_nothing(
    learnt: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, reason: BaseException
) -> None:
    """Each of the seven flushes fails in turn: five files and the folder, and the parent folder after the rename."""
    flushed = 0

    def fsync(_descriptor: int) -> None:
        nonlocal flushed
        flushed += 1
        if flushed == failing + 1:
            raise reason

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises((StorageError, KeyboardInterrupt), match=r"No space left|^$"):
        write_bundle(tmp_path / "bundle", learnt.manifest, files_of(learnt))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == (set() if failing < 6 else {"bundle"})


def test_a_path_that_cannot_be_written_is_a_storage_error(learnt: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write the bundle"):
        write_bundle(tmp_path / "file" / "bundle", learnt.manifest, files_of(learnt))


def test_scores_far_below_the_threshold_are_compared_on_its_scale() -> None:
    assert GoldenCheck(4.52e-06, 4.47e-06, threshold=1.0).deviation < 1e-5
    assert GoldenCheck(4.52e-06, 4.47e-06).deviation > 1e-2
    assert GoldenCheck(1.0, 1.002, threshold=1.0).deviation == pytest.approx(2e-3)
