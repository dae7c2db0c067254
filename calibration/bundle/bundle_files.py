"""The files in a bundle's folder, read as what may have been cut short, replaced or made by anyone."""

from __future__ import annotations

import errno
import hashlib
import math
import mmap
import os
import tokenize
import zipfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from calibration.atomic_file import open_regular
from calibration.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_LARGEST_BYTES = {".json": 2**22, ".sha256": 2**10, ".onnx": 2**31, ".npz": 2**33}
_CHUNK_BYTES = 2**20
_KINDS = frozenset("biufU")
_NO_FILE = {errno.ELOOP: "it is a link", errno.EINVAL: "it is not a regular file"}
_COPY_AGAIN = "copy the bundle again from where it was made, or calibrate again"
# What zipfile and NumPy raise for files that are not what they expect, beside OSError.
_NOT_NPZ = (
    zipfile.BadZipFile,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,  # a member is encrypted, or its header nested too deep; includes NotImplementedError
    SyntaxError,
    SystemError,  # text of code points that do not exist
    TypeError,
    ValueError,
    tokenize.TokenError,
)


def altered(path: Path, reason: str) -> BundleError:
    """The error for a file that is there but not as it was written."""
    return BundleError(what=f"{path} is not what calibration wrote ({reason})", remedy=_COPY_AGAIN)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """One file of a bundle, open for reading.

    Raises:
        BundleError: Not there, not readable, a link, not a regular file, or larger than any file of that name.
    """
    try:
        with open_regular(path, os.O_NOFOLLOW) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _LARGEST_BYTES[path.suffix]:
                raise altered(path, f"it has {size} bytes, more than any {path.name}")
            yield file
    except OSError as error:
        if error.errno in _NO_FILE:
            raise altered(path, _NO_FILE[error.errno]) from error
        raise BundleError(
            what=f"cannot read {path.absolute()}: {error.strerror}",
            remedy="use the folder that `shiftwatch-calibrate fit` wrote",
        ) from error


def sha256(path: Path) -> str:
    """SHA-256 of a file, read in chunks because a device has little memory."""
    digest = hashlib.sha256()
    with opened(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def refuse_external_weights(path: Path) -> None:
    """Raise BundleError if a network takes weights from other files, which no hash covers."""
    with opened(path) as file:
        if not os.fstat(file.fileno()).st_size:
            raise altered(path, "it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            may_have_some = content.find(b"location") >= 0  # the key without which no tensor is in another file
    if not may_have_some:
        return
    # Slow to import, and rarely needed.
    import onnx  # noqa: PLC0415
    from google.protobuf.message import DecodeError  # noqa: PLC0415

    from calibration.onnx_graph import external_tensors  # noqa: PLC0415

    try:
        external = external_tensors(onnx.load(path, load_external_data=False))
    except DecodeError as error:
        raise altered(path, "it is not an ONNX file") from error
    if external:
        raise altered(path, f"{len(external)} of its weights lie in other files, such as {external[0].name!r:.100}")


class Arrays(dict[str, "NDArray[Any]"]):
    """Arrays of a file, by name; asking for one that it lacks raises BundleError."""

    def __init__(self, path: Path, arrays: dict[str, NDArray[Any]]) -> None:
        super().__init__(arrays)
        self._path = path

    def __missing__(self, name: str) -> NDArray[Any]:
        """Called for a name that is not there."""
        raise altered(self._path, f"it lacks the array {name}")


def arrays_in(path: Path, *names: str) -> Arrays:
    """The named arrays of an .npz file, or all.

    Raises:
        BundleError: Not readable, without one of these, or a member is compressed, not a plain array, or says that it
            is larger than it is.
    """
    with opened(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            with zipfile.ZipFile(file) as archive:
                problem = _problem_of(archive, size)
            if problem:
                raise altered(path, problem)
            file.seek(0)
            with np.load(file, allow_pickle=False) as loaded:
                arrays = {name: loaded[name] for name in names or loaded.files}
            for array in arrays.values():
                if array.dtype.kind == "U":  # a ValueError for what is neither text nor the name of a file
                    "".join(array.ravel().tolist()).encode(errors="surrogateescape")
        except _NOT_NPZ as error:
            raise altered(path, ascii(str(error) or type(error).__name__)[1:200]) from error
        return Arrays(path, arrays)


def _problem_of(archive: zipfile.ZipFile, size: int) -> str | None:
    """Unless all members together fit into a file of this size, and each is the array that its header says."""
    members = archive.infolist()
    if len({member.filename for member in members}) < len(members):
        return "it has two arrays of one name"
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        return "it is compressed"
    if sum(member.file_size for member in members) > size:
        return "its arrays are larger than the file"
    for member in members:
        with archive.open(member) as content:
            shape, dtype = _header(content)
            size_in_memory = math.prod(shape) * dtype.itemsize
            if dtype.kind not in _KINDS or dtype.shape:
                return f"{member.filename!r:.100} holds neither numbers nor text"
            if size_in_memory != member.file_size - content.tell() or min(shape, default=0) < 0:
                return f"{member.filename!r:.100} is not as large as it says"
    return None


def _header(content: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    read = npy.read_array_header_1_0 if npy.read_magic(content) == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(content)
    return shape, dtype
