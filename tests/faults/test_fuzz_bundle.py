"""A bundle folder with any content opens and scores as calibrated, or is refused: no traceback, hang or gigabytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.alerts.defect import Rules
from agent.drift.drift_watch import DriftWatch
from agent.frame_checks.camera_checks import FrameChecks
from calibration.backbones.backbone import filterbank_backbone
from calibration.bundle.bundle import (
    MANIFEST,
    MOMENTS,
    NETWORK,
    REFERENCE,
    SEAL,
    check_golden,
    npz_bytes,
    open_bundle,
    seal,
)
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.preprocess import Preprocess
from calibration.statistics.moments import Moments
from calibration.workstation.cli.output import describe
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import PreprocessRequest, Settings
from tests.support.fuzzing import FUZZING, Door, report
from tests.support.washers import SIDE, Drawn, washer

if TYPE_CHECKING:
    from pathlib import Path

_Change: TypeAlias = Callable[["Path", st.DataObject], None]

_FILES = (NETWORK, MOMENTS, REFERENCE, MANIFEST, SEAL)
_ODD_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    10**4000,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 70_000,
    "\ud800",
    "../../etc/passwd",
    "\x1b[31m",
    [],
    [[]],
    {},
    {"a": 1},
    {NETWORK: "0"},
    [0.5, float("nan")],
    [1, 1, 10**9, 10**9],
]
_ODD_TEXTS = [
    b"",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"schema_version": ' + b"9" * 6_000 + b"}",
    b'{"schema_version": "\\ud800"}',
    b'{"\\ud800": 1}',
    b"\xff\xfe",
    b"null",
    b'{"files": {}, "files": []}',
    b"[" + b"{}," * 400_000 + b"{}]",
]
_ODD_ARRAYS: list[np.ndarray[Any, Any]] = [
    np.zeros(0),
    np.zeros(()),
    np.zeros((4, 0, SIDE, 3), np.uint8),
    np.zeros((4, SIDE, SIDE, 3), np.uint8),
    np.full(4, np.nan),
    np.full(4, np.inf),
    np.zeros((1, 1, 1, 1, 1, 1), np.int8),
    np.array(["x" * 70_000]),
    np.array([b"bytes"]),
    np.array([1 + 2j]),
    np.array(["2020-01-01"], "M8[D]"),
    np.zeros(3, [("a", "f8"), ("b", "i4")]),
    np.array([0x7FFFFFFF], np.uint32).view("<U1"),
    np.array([0xD800], np.uint32).view("<U1"),
    np.array([None, {}], object),
]


def _reseal(folder: Path) -> None:
    """Make hashes true again, as far as the manifest can be read."""
    if not all((folder / name).is_file() and (folder / name).stat().st_size < 2**24 for name in (MANIFEST, SEAL)):
        return
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        for name in manifest["files"]:
            if (folder / name).is_file() and (folder / name).stat().st_size < 2**24:
                manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    except (ValueError, LookupError, TypeError, OSError, RecursionError):
        pass
    (folder / SEAL).write_bytes(seal((folder / MANIFEST).read_bytes()))


def _file(folder: Path, data: st.DataObject) -> Path:
    return folder / data.draw(st.sampled_from(_FILES))


def _flip(folder: Path, data: st.DataObject) -> None:
    path = _file(folder, data)
    content = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=20)):
        content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)


def _cut(folder: Path, data: st.DataObject) -> None:
    path = _file(folder, data)
    os.truncate(path, data.draw(st.integers(0, path.stat().st_size)))


def _enlarge(folder: Path, data: st.DataObject) -> None:
    path = _file(folder, data)
    os.truncate(path, data.draw(st.sampled_from([2**20, 2**23, 2**40])))  # sparse: no disk is needed


def _link(folder: Path, data: st.DataObject) -> None:
    path = _file(folder, data)
    kind = data.draw(st.sampled_from(["link", "loop", "device", "pipe", "folder", "none"]))
    path.rename(folder / "moved")
    if kind == "link":
        path.symlink_to("moved")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()


def _change_value(folder: Path, data: st.DataObject) -> None:
    """One value of the manifest, at any depth."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    inside: Any = manifest
    while True:
        keys = sorted(inside) if isinstance(inside, dict) else list(range(len(inside)))
        key = data.draw(st.sampled_from([*keys, "new"] if isinstance(inside, dict) else keys))
        child = inside.get(key) if isinstance(inside, dict) else inside[key]
        if not isinstance(child, (dict, list)) or not child or data.draw(st.booleans()):
            break
        inside = child
    if isinstance(inside, dict) and data.draw(st.integers(0, 9)) == 0:
        inside.pop(key, None)
    else:
        inside[key] = data.draw(st.one_of(st.sampled_from(_ODD_VALUES), st.floats(), st.integers()))
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def _change_text(folder: Path, data: st.DataObject) -> None:
    (folder / MANIFEST).write_bytes(data.draw(st.sampled_from(_ODD_TEXTS)))


def _change_array(folder: Path, data: st.DataObject) -> None:
    path = folder / data.draw(st.sampled_from([MOMENTS, REFERENCE]))
    with np.load(path) as loaded:
        arrays = dict(loaded)
    name = data.draw(st.sampled_from(sorted(arrays)))
    kind = data.draw(st.sampled_from(["odd", "drop", "cast", "slice", "fill"]))
    array = arrays.pop(name)
    if kind == "odd":
        arrays[name] = data.draw(st.sampled_from(_ODD_ARRAYS))
    elif kind == "cast":
        arrays[name] = np.resize(array, array.shape).astype("U4" if array.dtype.kind != "U" else "S4")
    elif kind == "slice":
        arrays[name] = array[..., :0] if array.ndim else array[None]
    elif kind == "fill" and array.dtype.kind == "f":
        arrays[name] = np.full_like(array, data.draw(st.sampled_from([np.nan, np.inf, 0.0, 1e30, -1.0])))
    path.write_bytes(npz_bytes(arrays))


def _change_archive(folder: Path, data: st.DataObject) -> None:
    """The same members in another kind of archive, or with a header that lies."""
    path = folder / data.draw(st.sampled_from([MOMENTS, REFERENCE]))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    kind = data.draw(st.sampled_from(["compressed", "bomb", "lie", "deep", "twice", "name"]))
    name = data.draw(st.sampled_from(sorted(members)))
    if kind == "lie":
        members[name] = members[name][:80].replace(b"'shape': (", b"'shape': (99999,") + members[name][80:]
    elif kind == "deep":
        members[name] = b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10_000
    elif kind == "bomb":
        members[name] = b"\x93NUMPY\x01\x00" + bytes(2**24)
    buffer = io.BytesIO()
    compression = zipfile.ZIP_DEFLATED if kind in {"compressed", "bomb"} else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for each, content in members.items():
            archive.writestr("../" + each if kind == "name" else each, content)
        if kind == "twice":
            archive.writestr("more.npy", members[name])
    content = buffer.getvalue()
    path.write_bytes(content.replace(b"more.npy", b"mean.npy") if kind == "twice" else content)


def _change_network(folder: Path, data: st.DataObject) -> None:
    model = onnx.load(folder / NETWORK)
    graph = model.graph
    kind = data.draw(st.sampled_from(["external", "memory", "output", "input", "node", "weights"]))
    if kind in {"external", "memory"}:
        tensor = graph.initializer[data.draw(st.integers(0, len(graph.initializer) - 1))]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        location = "*/_ORT_MEM_ADDR_/*" if kind == "memory" else data.draw(st.sampled_from(["w", "../w", "/dev/zero"]))
        tensor.external_data.add(key="location", value=location)
    elif kind == "output":
        graph.output[data.draw(st.integers(0, len(graph.output) - 1))].name = "other"
    elif kind == "input":
        dimension = graph.input[0].type.tensor_type.shape.dim[data.draw(st.integers(0, 3))]
        dimension.dim_value = data.draw(st.sampled_from([0, 1, 2, 2**20, 2**40]))
    elif kind == "node":
        del graph.node[data.draw(st.integers(0, len(graph.node) - 1))]
    else:
        del graph.initializer[data.draw(st.integers(0, len(graph.initializer) - 1))]
    (folder / NETWORK).write_bytes(model.SerializeToString())


_CHANGES: tuple[_Change, ...] = (
    _flip,
    _cut,
    _enlarge,
    _link,
    _change_value,
    _change_value,
    _change_text,
    _change_array,
    _change_array,
    _change_archive,
    _change_network,
)


def _used(folder: Path) -> None:
    """All that ``verify``, ``fit``'s summary, and the start of an agent do with a bundle."""
    bundle = open_bundle(folder)
    point = bundle.manifest.working_point
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        check_golden(bundle, engine)
    Rules(point.threshold)
    reference, preprocess = bundle.reference(), bundle.preprocess
    FrameChecks(reference, preprocess, frozen_after=10, recheck_ms=100)
    DriftWatch(reference, point.threshold)
    Moments.unpacked(bundle.moments())
    describe(bundle)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with all that bundles can have."""
    path = tmp_path_factory.mktemp("whole") / "washers"
    request = PreprocessRequest(4, [np.indices((SIDE, SIDE)).sum(axis=0) < 12])
    settings_of_fit = Settings(Preprocess(SIDE, SIDE), learn=request, threads=1)
    images = Drawn([washer(number) for number in range(12)])
    calibrate(images, filterbank_backbone(SIDE, SIDE), settings_of_fit, path, lambda *_: None)
    return path


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of zeros to divide by, in numbers that nothing vouches for
def test_any_bundle_folder_is_used_as_calibrated_or_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bundle"
    _used(whole)
    door = Door("bundle folder")

    @settings(FUZZING)
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        data.draw(st.sampled_from(_CHANGES))(folder, data)
        if data.draw(st.integers(0, 4)):
            _reseal(folder)
        with door.case():
            _used(folder)

    attempt()
    assert door.accepted
    assert door.refused
    report(door, capsys)
