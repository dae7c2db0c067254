"""One image in the archive: its files, and its row in the index."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import cv2

from agent.archive.caption import captioned
from agent.archive.thumbnail import with_thumbnail
from agent.messages.records import Evaluation, to_json
from calibration.errors import DatasetError
from calibration.imaging.heatmap import overlay

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.archive.snapshot import Snapshot
    from agent.messages.records import Payload
    from calibration.imaging.preprocess import Image

Label: TypeAlias = Literal["good", "defect"]

CLASSES = {"ok": Evaluation.OK, "not_ok": Evaluation.NOT_OK, "not_decidable": Evaluation.NOT_DECIDABLE}
CLASS_NAMES = {evaluation: name for name, evaluation in CLASSES.items()}
FRAME, OVERLAY, NUMBERS, MARK = ".png", ".overlay.jpg", ".json", ".mark"
_LABELS: dict[str, Label] = {"good": "good", "defect": "defect"}
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92]
_BLOCK_BYTES, _NAME_BYTES = 4096, 64
_LARGEST = 2**62


class ArchivedImage(NamedTuple):
    """One image, as the index describes it.

    Attributes:
        path: Path of the frame below the archive, ``imageRef`` of the result.
        seq: Number of the frame in its session.
        code: ``resultCode``.
        zone: The zone farthest above its threshold; empty where there is one bundle, or nothing NotOK.
        score: None without a score.
        bytes: Space that its files take on the disk.
        label: Label that a person gave it; None without one.
        marked_by: Name of that person.
        marked_at_ms: Time of the label.
    """

    path: str
    result_id: str
    part_id: str | None
    seq: int
    created_at_ms: int
    evaluation: Evaluation
    code: int
    zone: str
    score: float | None
    threshold: float
    bytes: int
    label: Label | None = None
    marked_by: str | None = None
    marked_at_ms: int | None = None

    @property
    def ratio(self) -> float | None:
        """Score divided by threshold."""
        return None if self.score is None or not self.threshold else self.score / self.threshold


class Mark(NamedTuple):
    """A label that a person gave an image."""

    label: Label
    by: str
    at_ms: int

    def content(self) -> bytes:
        """Content of the file next to the image."""
        return json.dumps({"label": self.label, "by": self.by, "at": self.at_ms}).encode()


def encoded(snapshot: Snapshot) -> dict[str, bytes]:
    """Content of the files of a snapshot by their endings; the numbers last.

    Raises:
        cv2.error: The image cannot be encoded.
        DatasetError: The region reaches outside it.
    """
    shown, result = snapshot.image, snapshot.result
    if snapshot.heat:
        for each in snapshot.heat:
            shown = overlay(shown, each.region, each.score_map, each.threshold)
        shown = captioned(shown, result.score, result.threshold, result.created_at_ms)
    images = {FRAME: with_thumbnail(_as(".png", (), snapshot.image), shown)}
    if snapshot.heat:
        images[OVERLAY] = _as(".jpg", _JPEG, shown)
    return {**images, NUMBERS: to_json(_numbers(snapshot, images)).encode()}


def image_of(snapshot: Snapshot, contents: Mapping[str, bytes]) -> ArchivedImage:
    """The image of a snapshot with these files.

    Raises:
        DatasetError: Its numbers are not valid.
    """
    sizes = {ending: len(content) for ending, content in contents.items()}
    image = image_from(snapshot.reference, contents[NUMBERS], sizes)
    if image is None:
        raise DatasetError(what=f"the numbers of {snapshot.reference} are not valid", remedy="report this error")
    return image


def image_from(path: str, numbers: bytes, sizes: Mapping[str, int]) -> ArchivedImage | None:
    """The image with these numbers and files; None if they are damaged, or do not belong together.

    Args:
        path: Path of its frame below the archive.
        numbers: Content of the file with its numbers.
        sizes: Bytes of each of its files, by ending.
    """
    try:
        content = json.loads(numbers)
        expected = {FRAME: content.get("frameBytes")}
        if content.get("overlay"):
            expected[OVERLAY] = content.get("overlayBytes")
        is_whole = all(ending in sizes and size in {None, sizes[ending]} for ending, size in expected.items())
        return _image(path, content, sum(map(room_of, sizes.values()))) if is_whole else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def zone_evaluations(numbers: bytes) -> dict[str, Evaluation]:
    """Evaluation of each zone that this frame decided, by its name.

    Empty for a station with one bundle, and for damaged numbers.
    """
    return {name: evaluation for name, (evaluation, _) in _zones(numbers).items()}


def zones_labelled(numbers: bytes) -> set[str]:
    """Zones that a label of this frame is about: those that are NotOK; if none is, the nearest to its threshold."""
    zones = _zones(numbers)
    not_ok = {name for name, (evaluation, _) in zones.items() if evaluation is Evaluation.NOT_OK}
    nearest = max(zones, key=lambda name: zones[name][1], default=None)
    return not_ok or ({nearest} if nearest is not None else set())


def _zones(numbers: bytes) -> dict[str, tuple[Evaluation, float]]:
    """As `_zones_of`; empty for damaged numbers."""
    try:
        return _zones_of(json.loads(numbers))
    except ValueError:
        return {}


def _zones_of(content: Payload) -> dict[str, tuple[Evaluation, float]]:
    """Evaluation and margin of each zone that this frame decided; -1 without a margin, as of the score 0."""
    try:
        seq, zones = content["seq"], dict(content["zones"]).items()
        return {
            name: (Evaluation(zone["resultEvaluation"]), float(-1.0 if zone["margin"] is None else zone["margin"]))
            for name, zone in zones
            if zone["seq"] == seq
        }
    except (KeyError, TypeError, ValueError):
        return {}


def _worst_zone(content: Payload) -> str:
    """The NotOK zone with the largest margin; empty without one."""
    zones = _zones_of(content)
    rejected = [name for name, (evaluation, _) in zones.items() if evaluation is Evaluation.NOT_OK]
    return storable(max(rejected, key=lambda name: zones[name][1], default=""))


def mark_from(content: bytes) -> Mark | None:
    """The label in a file; None if it is damaged."""
    try:
        fields = json.loads(content)
        label = _LABELS[fields["label"]]
        return Mark(label, storable(fields["by"]), _whole(fields["at"]))
    except (KeyError, TypeError, ValueError):
        return None


def storable(text: object) -> str:
    """Text that SQLite accepts: without lone surrogates, which the name of a part may contain."""
    return str(text).encode(errors="replace").decode()


def room_of(size_bytes: int) -> int:
    """Space that a file of this size takes on the disk, with its name in the folder."""
    return -(-size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES + _NAME_BYTES


def sibling(path: str, ending: str) -> str:
    """Path of the file next to a frame, with another ending."""
    return path.removesuffix(FRAME) + ending


def _numbers(snapshot: Snapshot, images: dict[str, bytes]) -> Payload:
    frame, result, region = PurePosixPath(snapshot.reference).name, snapshot.result, snapshot.region
    numbers = {
        "resultId": result.result_id,
        "seq": result.seq,
        "partId": result.part_id,
        "creationTime": result.created_at_ms,
        "resultEvaluation": int(result.evaluation),
        "resultCode": int(result.code),
        "score": result.score if math.isfinite(result.score) else None,
        "threshold": result.threshold,
        "regions": [each.payload() for each in result.regions],
        "region": None if region is None else asdict(region),
        "zones": {name: zone.payload() for name, zone in result.zones.items()},
        "frame": frame,
        "frameBytes": len(images[FRAME]),
    }
    if OVERLAY in images:
        numbers |= {"overlay": sibling(frame, OVERLAY), "overlayBytes": len(images[OVERLAY])}
    return numbers


def _image(path: str, numbers: Any, room_bytes: int) -> ArchivedImage:  # noqa: ANN401 - any JSON
    score, part_id = numbers["score"], numbers.get("partId")
    return ArchivedImage(
        path=path,
        result_id=storable(numbers["resultId"]),
        part_id=None if part_id is None else storable(part_id),
        seq=_whole(numbers["seq"]),
        created_at_ms=_whole(numbers["creationTime"]),
        evaluation=Evaluation(numbers.get("resultEvaluation", Evaluation.NOT_OK)),
        code=_whole(numbers.get("resultCode", 0)),
        zone=_worst_zone(numbers),
        score=None if score is None else float(score),
        threshold=float(numbers["threshold"]),
        bytes=room_bytes,
    )


def _whole(number: object) -> int:
    if not isinstance(number, int) or not -_LARGEST < number < _LARGEST:
        raise ValueError  # the caller reports what is damaged
    return number


def _as(kind: str, settings: Sequence[int], image: Image) -> bytes:
    _, content = cv2.imencode(kind, image, settings)
    return content.tobytes()
