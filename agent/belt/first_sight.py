"""The empty belt as far as one picture shows it, although parts lie on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from agent.belt.small_picture import Mask, Small

_ROUNDS = 2
_DARKEST = 1.0
_TIMES, _LEAST = 6.0, 8.0


def without_parts(picture: Small) -> Small:
    """What rows and columns have in common: a colour of each row times a light of each column (Tukey's median polish).

    A belt, its rails and the fall of the lamp's light look like that, seen along or across. A part does not change the
    median of a row or column of which it covers less than half.
    """
    logarithm = np.log(np.maximum(picture, _DARKEST))
    rest, rows, columns = logarithm.copy(), 0.0, 0.0
    for _ in range(_ROUNDS):
        of_rows = np.median(rest, axis=1, keepdims=True)
        rest -= of_rows
        of_columns = np.median(rest, axis=0, keepdims=True)
        rest -= of_columns
        rows, columns = rows + of_rows, columns + of_columns
    return np.asarray(np.exp(rows + columns), np.float32)


def likely_parts(change: Small, usual: float) -> Mask:
    """Where a picture may show parts: what is changed by much more than usual, without thin lines.

    Thin lines are edges of the scene that lie askew.
    """
    parts = (change > max(_TIMES * usual, _LEAST)).astype(np.uint8) * 255
    thick = cv2.morphologyEx(parts, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    return np.asarray(cv2.dilate(thick, np.ones((7, 7), np.uint8)), np.uint8)
