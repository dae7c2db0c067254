"""Where images come from: folders, the MVTec layout, videos."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from calibration.errors import DatasetError, SettingError
from calibration.imaging.image_files import IMAGE_SUFFIXES, images_and_masks_in, read_image
from calibration.imaging.image_form import image_form
from calibration.imaging.video import count_frames, open_video

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from calibration.imaging.image_form import ImageForm
    from calibration.imaging.preprocess import Image

    NamedImage: TypeAlias = tuple[str, Image]

GOOD = "good"


class Images(Protocol):
    """Images to learn from, read one at a time.

    Attributes:
        source: Where they come from, for the manifest.
        sequential: Neighbours resemble each other (a video): held-out folds must be blocks, not samples.
        skipped: What could not be read, with the reason; complete after an iteration.
        left_out: Names of the images that the user excluded.
    """

    source: str
    sequential: bool
    skipped: list[str]
    left_out: tuple[str, ...]

    def __len__(self) -> int:
        """Number of images, as far as known beforehand; skipped ones count, excluded ones do not."""

    def __iter__(self) -> Iterator[NamedImage]:
        """(name, image) of each readable image, (rows, columns, 3), uint8 BGR; no two have the same name."""

    def again(self, names: Collection[str]) -> Iterator[NamedImage]:
        """Read some of the images a second time, in their order; ``skipped`` does not change.

        Raises:
            DatasetError: One is not readable any more.
        """


@dataclass
class ImageFiles:
    """Images in files.

    Attributes:
        copies: Files with the bytes of one of the paths, each with that path; they are not read.
        masks: Files beside the paths that were left out as masks.
        unread: Files beside the paths that are not of a kind that is read.
        forms: The form of each image that was read; complete after an iteration.
    """

    source: str
    paths: Sequence[Path]
    sequential: bool = False
    skipped: list[str] = field(default_factory=list)
    left_out: tuple[str, ...] = ()
    copies: Sequence[tuple[Path, Path]] = ()
    masks: Sequence[Path] = ()
    unread: Sequence[Path] = ()
    forms: dict[str, ImageForm] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def __iter__(self) -> Iterator[NamedImage]:
        """Read each file; a damaged one is skipped and named."""
        self.skipped.clear()
        for path in self.paths:
            try:
                image = read_image(path)
            except DatasetError as error:
                self.skipped.append(error.what)
                continue
            self.forms[str(path)] = image_form(path, image)
            yield str(path), image

    def again(self, names: Collection[str]) -> Iterator[NamedImage]:
        """Read those files only."""
        return ((str(path), read_image(path)) for path in self.paths if str(path) in names)


@dataclass
class VideoFrames:
    """Frames of a video file, or every ``step``-th of a stretch of it."""

    source: str
    path: Path
    frames: range
    sequential: bool = True
    skipped: list[str] = field(default_factory=list)
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames) - len(self.left_out)

    def __iter__(self) -> Iterator[NamedImage]:
        """Read from the start: seeking is not exact in most codecs."""
        self.skipped.clear()
        excluded = set(self.left_out)
        return self._read([index for index in self.frames if self.name(index) not in excluded], self.skipped)

    def again(self, names: Collection[str]) -> Iterator[NamedImage]:
        """Read from the start again, up to the last of them."""
        return self._read([index for index in self.frames if self.name(index) in names], [])

    def name(self, index: int) -> str:
        """Name of a frame."""
        return f"{self.path}#{index}"

    def _read(self, ascending: list[int], skipped: list[str]) -> Iterator[NamedImage]:
        chosen = frozenset(ascending)
        video = open_video(self.path)
        if video is None:
            skipped.append(f"{self.path} does not open any more")
            return
        try:
            for index in range(ascending[-1] + 1 if ascending else 0):
                if not video.grab():
                    skipped.append(f"{self.path} ends before frame {index}; it may be truncated")
                    return
                if index in chosen:
                    try:
                        image = video.retrieve()
                    except DatasetError as error:
                        skipped.append(f"frame {index} of {self.path}: {error.what}")
                        continue
                    yield self.name(index), image
        finally:
            video.release()


def good_images(source: Path, frames: slice = slice(None), excluded: Collection[str] = ()) -> Images:
    """Images of good parts.

    Args:
        source: A folder of images, a video file, or a folder in one of the layouts that ``labelled_images`` knows,
            of which ``train/good``, ``good`` or ``MT_Free/Imgs`` is taken.
        frames: Range of the video, or of the sorted images, to take.
        excluded: Images of these to leave out, named as ``Images`` names them, with or without their folder.

    Raises:
        DatasetError: Nothing there, or nothing readable.
        SettingError: An excluded image is not there.
    """
    if not source.exists():
        raise DatasetError(what=f"{source.absolute()} does not exist", remedy="give a folder of images or a video")
    if not source.is_dir():
        return _video(source, frames, excluded)
    usual = (source / "train" / GOOD, source / GOOD, source / "MT_Free" / "Imgs")
    folder = next((each for each in usual if each.is_dir()), source)
    found, masks = images_and_masks_in(folder)
    if not found:
        inside = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        raise DatasetError(
            what=f"no images in {folder.absolute()} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})"
            + (f"; it has the folders {', '.join(inside[:8])}" if inside else ""),
            remedy="give the folder that holds the images of good parts, or an MVTec layout with train/good",
        )
    chosen = found[frames]
    if not chosen:
        raise DatasetError(
            what=f"no images chosen from the {len(found)} in {folder.absolute()}",
            remedy="give --frames START:STOP or START:STOP:STEP within their number",
        )
    kept, copies = distinct(chosen)
    original_of = dict(copies)
    named = _found([str(path) for path in chosen], excluded)
    gone = {original_of.get(path, path) for path in map(Path, named)}  # an image is left out with all its copies
    return ImageFiles(
        str(folder),
        [path for path in kept if path not in gone],
        left_out=tuple(str(path) for path in chosen if original_of.get(path, path) in gone),
        copies=[(copy, original) for copy, original in copies if original not in gone],
        masks=masks,
        unread=_other_files(folder),
    )


def distinct(paths: Sequence[Path]) -> tuple[list[Path], list[tuple[Path, Path]]]:
    """The first of all files with the same image, byte for byte; and the others, each with that first one.

    Where all are the same, none is a copy: calibration says what that means. Damaged files are no copies either.
    """
    sizes = Counter(map(_size, paths))
    first_of: dict[object, Path] = {}
    copies = []
    for path in paths:
        content = path if sizes[_size(path)] == 1 else _digest(path)
        first = first_of.setdefault(content, path)
        if first != path:
            copies.append((path, first))
    originals = {first for _, first in copies if len(first_of) > 1}
    readable = {first for first in originals if _is_readable(first)}
    copies = [pair for pair in copies if pair[1] in readable]
    left = {copy for copy, _ in copies}
    return [path for path in paths if path not in left], copies


def _is_readable(path: Path) -> bool:
    try:
        read_image(path)
    except DatasetError:
        return False
    return True


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None  # reading it names it


def _digest(path: Path) -> object:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return path


def _other_files(folder: Path) -> list[Path]:
    """Files that no image is read from, without hidden ones."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() not in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _video(path: Path, frames: slice, excluded: Collection[str]) -> VideoFrames:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise DatasetError(what=f"{path.absolute()} is a single image", remedy="give the folder that it is in")
    video = open_video(path)
    if video is None:
        raise DatasetError(
            what=f"{path.absolute()} is neither a folder nor a video this OpenCV can open",
            remedy="give a folder of images, or a video as .mp4, .avi or .mkv",
        )
    video.release()
    length = count_frames(path)
    chosen = range(*frames.indices(length))
    if not chosen or chosen.step < 0:
        raise DatasetError(
            what=f"no frames chosen from the {length} of {path.absolute()}",
            remedy="give --frames START:STOP or START:STOP:STEP within the video",
        )
    video_frames = VideoFrames(str(path), path, chosen)
    return replace(video_frames, left_out=_found([video_frames.name(index) for index in chosen], excluded))


def _found(names: Sequence[str], excluded: Collection[str]) -> tuple[str, ...]:
    """The names that are excluded; SettingError if one of those excluded is not among them."""
    found = tuple(name for name in names if name in excluded or Path(name).name in excluded)
    unknown = set(excluded) - set(found) - {Path(name).name for name in found}
    if unknown:
        raise SettingError(
            what=f"to be left out, but not among the {len(names)} images: {', '.join(sorted(unknown))}",
            remedy="write each name as `fit` and the report show it, with or without its folder, one a line",
        )
    return found


def frame_range(text: str) -> slice:
    """``START:STOP`` or ``START:STOP:STEP`` with any part left out, as in Python.

    Raises:
        SettingError: Another form.
    """
    try:
        parts = [int(part) if part else None for part in text.split(":")]
    except ValueError:
        parts = []
    if len(parts) not in {2, 3} or (len(parts) == 3 and parts[2] is not None and parts[2] < 1):  # noqa: PLR2004
        raise SettingError(what=f"--frames {text!r} is not a range", remedy="write START:STOP or START:STOP:STEP")
    return slice(*parts)
