"""What a person should know about the image files that were learned from, or were not."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from calibration.bundle.manifest import FindingRecord
from calibration.workstation.dataset import ImageFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from calibration.imaging.image_form import ImageForm
    from calibration.workstation.dataset import Images

    _Forms = Mapping[str, ImageForm]

_LEAST_USED_BITS = 14
_WORD = 16


def image_findings(images: Images) -> tuple[FindingRecord, ...]:
    """All findings about images that were read, those first that change most; none for a video."""
    if not isinstance(images, ImageFiles):
        return ()
    return tuple(
        FindingRecord(what=what, images=tuple(names))
        for what, names in (*_about_names(images), *_about_forms(images.forms))
        if names
    )


def _about_names(images: ImageFiles) -> Iterator[tuple[str, list[str]]]:
    yield (
        "identical copies of another image, counted once",
        [f"{copy} is a copy of {original.name}" for copy, original in images.copies],
    )
    yield "left out as masks: PNG files beside a photo of the same name", [str(path) for path in images.masks]
    yield "files of other kinds, not read", [str(path) for path in images.unread]


def _about_forms(forms: _Forms) -> Iterator[tuple[str, list[str]]]:
    if not forms:
        return
    masks = [name for name, form in forms.items() if form.is_mask_like]
    if 2 * len(masks) < len(forms):
        yield "images that look like masks, not like photos", masks
    for each in _PROPERTIES:
        yield _less_common(forms, each)
    yield from _shallow(forms)
    yield (
        "files with several pages or frames, of which only the first is used",
        [name for name, form in forms.items() if form.has_pages],
    )


class _Property(NamedTuple):
    """Something that all images of a set should have alike.

    Attributes:
        of: Its value for an image.
        what: What the images are that differ from most.
        shown: A value as text.
        consequence: What that means, if it has to be said.
    """

    of: Callable[[ImageForm], Hashable]
    what: str
    shown: Callable[[Any], str]
    consequence: str = ""


_PROPERTIES = (
    _Property(
        lambda form: form.size,
        "of another size than most",
        lambda size: f"{size[0]}x{size[1]}",
        "; all are stretched to the network input, and the agent's camera has one size",
    ),
    _Property(
        lambda form: form.is_turned,
        "unlike most in that the file says how to turn them",
        lambda turned: "turned upright" if turned else "as stored",
        "; frames of a camera are not turned",
    ),
    _Property(lambda form: form.bits, "of another depth than most", lambda bits: f"{bits} bits"),
    _Property(lambda form: form.is_colour, "unlike most in colour", lambda colour: "in colour" if colour else "grey"),
)


def _less_common(forms: _Forms, each: _Property) -> tuple[str, list[str]]:
    """The images that differ from most of the others in one property."""
    counts = Counter(each.of(form) for form in forms.values()).most_common()
    values = ", ".join(f"{count} {each.shown(value)}" for value, count in counts)
    names = [name for name, form in forms.items() if each.of(form) != counts[0][0]]
    return f"images {each.what} ({values}{each.consequence})", names


def _shallow(forms: _Forms) -> Iterator[tuple[str, list[str]]]:
    """Images of 16 bits whose values are small, as of a camera of 12 bits: the upper byte is all that is used."""
    deep = {name: form.used_bits for name, form in forms.items() if form.bits == _WORD}
    used = max(deep.values(), default=_WORD)
    if used <= _LEAST_USED_BITS:
        levels = 2 ** max(0, used - _WORD // 2)
        what = (
            f"images of 16 bits that use only the lower {used}: {levels} grey levels are left of them, because the "
            f"upper 8 bits are used; multiply their values by {2 ** (_WORD - used)} before"
        )
        yield what, list(deep)
