"""A bundle that learns on from parts that a device has seen: a changed lamp, another steel, a new product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from calibration.bundle import Bundle
    from calibration.collection import Collection

    Progress: TypeAlias = Callable[[str, int, int], None]

Mode: TypeAlias = Literal["threshold", "mean", "full", "teach"]


@dataclass(frozen=True)
class Plan:
    """How to learn on.

    Attributes:
        mode: ``threshold`` moves the working point only; ``mean`` also the means of all places; ``full`` also the
            covariances; ``teach`` forgets all but the network and learns a new product.
        old_weight: What an image of the old bundle counts against a new part in ``full``; 0 forgets the old ones.
        false_reject_rate: None keeps that of the old bundle.
        sequential: Neighbouring parts resemble each other, as frames of a video do.
    """

    mode: Mode = "full"
    old_weight: float = 2.0
    false_reject_rate: float | None = None
    sequential: bool = True


@dataclass(frozen=True)
class Relearnt:
    """What became of it.

    Attributes:
        bundle: Written, not served yet.
        left_out: Names of suspicious parts, the worst first; not learnt, to be looked at by a person.
    """

    bundle: Bundle
    left_out: tuple[str, ...]


def refuse_unteachable(bundle: Bundle, plan: Plan, parts: int) -> None:
    """Raise SettingError where so many parts cannot do what is asked: too few, or a detector without moments."""
    raise NotImplementedError


def relearn(bundle: Bundle, collection: Collection, plan: Plan, path: Path, progress: Progress) -> Relearnt:
    """Write a new bundle; the old one stays as it is.

    Args:
        bundle: That judged the parts.
        collection: Its parts, by the same network (but in ``teach``, where another backbone may be chosen).
        plan: How.
        path: Folder of the new bundle; must not exist.
        progress: Told step, done, total.

    Raises:
        SettingError: See ``refuse_unteachable``.
        DatasetError: The parts show another product, or hardly differ (the line stands still).
        DegenerateFeaturesError: All alike.
        ScoreMismatchError: The new network does not score as its statistics say.
        StorageError: No room; nothing half-written is left.
    """
    raise NotImplementedError
