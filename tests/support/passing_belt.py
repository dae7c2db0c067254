"""A rendered belt under a camera: parts, hands, a shadow and a stain pass; the truth about the parts comes along."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import cv2
import numpy as np

from agent.camera import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image

Direction: TypeAlias = Literal["right", "left", "down", "up"]
_TURNS = {"right": None, "left": cv2.ROTATE_180, "down": cv2.ROTATE_90_CLOCKWISE, "up": cv2.ROTATE_90_COUNTERCLOCKWISE}
_NOISE = 2.0
_LAMP_DRIFT = 0.15


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that lies on the belt.

    Attributes:
        at_px: Its middle along the belt; the belt's way at which it is in the middle of the picture.
        across_px: Its middle across the belt.
        group: Parts of the same group touch; a single part has its own.
        kind: ``part``, ``stain`` or ``shadow``.
        is_defective: It has a dark spot.
        scale: Its size relative to that of the others.
    """

    at_px: float
    across_px: float
    turn_deg: float
    group: int
    kind: str = "part"
    is_defective: bool = False
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Hand:
    """An arm that comes from the side, stays over the belt, and goes; times in seconds, the place along the picture."""

    from_s: float
    until_s: float
    along_px: float
    reach_px: float


@dataclass(slots=True)
class PassingBelt:
    """What the camera sees.

    Attributes:
        direction: Of the belt, in the picture.
        speed_px_s: As a function of time; a number for a belt that never stops.
        shape: ``nut``, ``disc``, ``bar`` or ``plate``.
        part_grey, belt_grey: Grey levels.
        grain: Of the belt, in grey levels.
        size_px: Of the parts.
        drop: Share of the frames that get lost.
        lamp_drift: Of the light, both ways.
        rails: At both sides of the belt.
        start_px: The belt's way at the first frame; None: everything is still outside of the picture.
    """

    things: list[Thing]
    direction: Direction = "right"
    speed_px_s: float | Callable[[float], float] = 200.0
    shape: str = "nut"
    part_grey: float = 150.0
    belt_grey: float = 70.0
    grain: float = 5.0
    size_px: float = 60.0
    hands: list[Hand] = field(default_factory=list)
    drop: float = 0.0
    frames_per_s: float = 30.0
    width: int = 640
    height: int = 480
    lamp_drift: float = _LAMP_DRIFT
    seed: int = 0
    start_px: float | None = None
    rails: bool = True

    def way_at(self, frame: Frame) -> float:
        """How far the belt had run at a frame."""
        count = round((frame.captured_ns - 1_000_000_000) / 1e9 * self.frames_per_s)
        return self._first_px + sum(self._step_px(number) for number in range(1, count + 1))

    @property
    def _first_px(self) -> float:
        return -self.width / 2 if self.start_px is None else self.start_px

    def _step_px(self, number: int) -> float:
        """How far the belt moves before a frame."""
        speed = self.speed_px_s
        return (speed(number / self.frames_per_s) if callable(speed) else speed) / self.frames_per_s

    def frames(self, until_s: float | None = None) -> Iterator[Frame]:
        """The frames, until everything has passed or ``until_s``."""
        chance = np.random.default_rng(self.seed + 1)
        noise = chance.normal(0, _NOISE, (self.height + 64, self.width + 64, 3)).astype(np.float32)
        belt = _belt(self.height, self.grain, self.belt_grey, self.seed)
        if self.rails:
            belt[:14], belt[-14:] = (124, 130, 117), (114, 120, 108)
        last = max((thing.at_px for thing in self.things), default=0) + self.width
        way, now, seq = self._first_px, 0.0, 0
        while (until_s is None and way < last) or (until_s is not None and now < until_s):
            if chance.random() >= self.drop:
                image = self._picture(way, now, belt, noise, chance)
                yield Frame(seq, image, round(now * 1000), 1_000_000_000 + round(now * 1e9))
            seq, now = seq + 1, (seq + 1) / self.frames_per_s
            way += self._step_px(seq)

    def _picture(
        self, way: float, now: float, belt: NDArray[np.float32], noise: NDArray[np.float32], chance: np.random.Generator
    ) -> Image:
        first = (-way) % belt.shape[1]
        scene = _rolled(belt, first, self.width)
        for thing in self.things:
            x = self.width / 2 + way - thing.at_px
            if -200 < x < self.width + 200:
                self._lay(scene, thing, x)
        for hand in self.hands:
            if hand.from_s <= now <= hand.until_s:
                _reach(scene, hand, now, self.height)
        scene *= np.float32(1 + self.lamp_drift * math.sin(now * 0.7))
        y, x = chance.integers(64, size=2)
        scene += noise[y : y + self.height, x : x + self.width]
        image = np.clip(scene, 0, 255).astype(np.uint8)
        turn = _TURNS[self.direction]
        return image if turn is None else np.asarray(cv2.rotate(image, turn), np.uint8)

    def _lay(self, scene: NDArray[np.float32], thing: Thing, x: float) -> None:
        if thing.kind == "part":
            _draw(scene, self.shape, (x, thing.across_px), self.size_px * thing.scale, thing, self.part_grey)
            return
        factor, soft = (0.8, 6) if thing.kind == "stain" else (0.65, 16)
        layer = np.zeros(scene.shape[:2], np.float32)
        axes = (round(1.2 * self.size_px), round(0.75 * self.size_px))
        cv2.ellipse(layer, (round(x), round(thing.across_px)), axes, thing.turn_deg, 0, 360, 1.0, -1)
        scene *= 1 - (1 - factor) * cv2.GaussianBlur(layer, (0, 0), soft)[..., np.newaxis]


_DRAWN_PX = 16  # OpenCV draws to 1/16 of a pixel


def _draw(  # noqa: PLR0913, PLR0917 - all that is drawn
    scene: NDArray[np.float32], shape: str, middle: tuple[float, float], size: float, thing: Thing, grey: float
) -> None:
    turn = np.deg2rad(thing.turn_deg)
    axis, other = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    half = np.array({"nut": (0.5, 0.5), "bar": (0.8, 0.2), "plate": (0.6, 0.4), "disc": (0.5, 0.5)}[shape]) * size
    if shape in {"nut", "disc"}:
        steps = np.deg2rad(np.arange(0, 360, 60 if shape == "nut" else 10))
        points = np.outer(np.cos(steps), axis * half[0]) + np.outer(np.sin(steps), other * half[1])
    else:
        points = np.array([axis * half[0] * a + other * half[1] * b for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))])
    place = np.array(middle)

    def fill(polygon: NDArray[np.float64], colour: tuple[float, float, float]) -> None:
        fixed = np.round((polygon + place) * _DRAWN_PX).astype(np.int32)
        cv2.fillPoly(scene, [fixed], colour, cv2.LINE_8, 4)

    fill(points, (grey, grey * 0.97, grey * 0.94))
    fill(points * 0.8, (grey * 0.9, grey * 0.88, grey * 0.86))
    if shape == "nut":
        fill(points * 0.4, (66.0, 70.0, 62.0))
    if thing.is_defective:
        spot = np.array([axis * half[0] * 0.6]) + points * 0.15
        fill(spot, (20.0, 20.0, 20.0))


def _reach(scene: NDArray[np.float32], hand: Hand, now: float, height: int) -> None:
    """An arm and a fist from the bottom."""
    middle, scale = (hand.from_s + hand.until_s) / 2, height / 480
    share = 1 - abs(now - middle) / (hand.until_s - middle)
    wobble = 12 * math.sin(now * 7)
    x, tip = hand.along_px + scale * wobble, height - hand.reach_px * min(1.0, 2.0 * share) + 40 * scale
    arm = ((round(x + 30 * scale), round(height + 60 * scale)), (round(x), round(tip)))
    cv2.line(scene, *arm, (90, 120, 190), round(50 * scale), cv2.LINE_AA)
    fist = (round(36 * scale), round(44 * scale))
    cv2.ellipse(scene, (round(x), round(tip)), fist, wobble, 0, 360, (100, 135, 205), -1, cv2.LINE_AA)


def _rolled(belt: NDArray[np.float32], first: float, width: int) -> NDArray[np.float32]:
    start = int(first)
    columns = np.arange(start, start + width) % belt.shape[1]
    return np.ascontiguousarray(belt[:, columns])


def _belt(rows: int, grain: float, grey: float, seed: int) -> NDArray[np.float32]:
    """Fine and coarse grain and scratches along, (rows, 2000, 3)."""
    rng = np.random.default_rng(seed + 7)
    belt = np.full((rows, 2000), grey, np.float32)
    for share, along, across in ((0.7, 0.8, 0.8), (0.5, 8, 8), (0.5, 50, 1)):
        grains = cv2.copyMakeBorder(rng.standard_normal(belt.shape, np.float32), 0, 0, 200, 200, cv2.BORDER_WRAP)
        layer = cv2.GaussianBlur(grains, (0, 0), along, sigmaY=across)[:, 200:-200]  # a belt has no end
        belt += grain * share * layer / layer.std()
    return np.asarray(belt[..., np.newaxis] * np.array([0.95, 1.0, 0.9], np.float32), np.float32)


def random_things(  # noqa: PLR0913 - a scene
    parts: int,
    *,
    seed: int,
    apart_px: tuple[float, float] = (110.0, 260.0),
    touching: float = 0.0,
    defective: int = 0,
    size_px: float = 60.0,
    height: int = 480,
    scales: tuple[float, ...] = (1.0,),
) -> list[Thing]:
    """Parts at random distances, places and turns; a share of the groups are touching pairs of two."""
    chance = np.random.default_rng(seed)
    bad = set(chance.choice(parts, defective, replace=False).tolist()) if defective else set()
    things: list[Thing] = []
    at, group = 200.0, 0
    while len(things) < parts:
        across = chance.uniform(1.6 * size_px, height - 1.6 * size_px)
        scale = float(chance.choice(scales))
        is_pair = chance.random() < touching and len(things) + 1 < parts
        places = [(0.0, 0.0)]
        if is_pair:
            turn = chance.uniform(0, 2 * np.pi)
            places.append((0.9 * size_px * np.cos(turn), 0.9 * size_px * np.sin(turn)))
        for along, side in places:
            number = len(things)
            things.append(Thing(at + along, across + side, chance.uniform(0, 180), group, "part", number in bad, scale))
        group += 1
        at += size_px * (len(places) - 1)
        at += chance.uniform(*apart_px)
    return things
