"""What a set-up has decided so far. It is written after each change, so that an interrupted set-up continues."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import yaml
from pydantic import Field, model_validator

from agent.config import loader
from agent.config.camera import CameraConfig
from agent.config.inspection import StationConfig, TriggerConfig
from agent.config.services import MqttConfig
from agent.config.types import Section, ZoneName
from agent.config.yaml_values import not_of_a_file, yaml_text
from agent.errors import ConfigError, SetupError
from calibration.atomic_file import replace_file
from calibration.imaging.region import Region

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from typing_extensions import Self

_MOST_ZONES, _MOST_IGNORED, _MOST_PIXELS = 12, 20, 2**15
_MOST_THROWN_OUT = 1500
_LONGEST_NAME = 64

S = TypeVar("S", bound=Section)
Sides = Annotated[list[Annotated[int, Field(ge=0, le=_MOST_PIXELS)]], Field(min_length=4, max_length=4)]
_SIDES = f"x, y, width and height: whole numbers, 0 to {_MOST_PIXELS}"


class ZoneDraft(Section):
    """A zone: what is inspected of the frame, and what of that is ignored; each x, y, width, height in pixels."""

    name: Annotated[str, ZoneName] | None = None
    region: Sides | None = Field(default=None, json_schema_extra={"allowed": _SIDES})
    ignored: list[Sides] = Field(
        default=[],
        max_length=_MOST_IGNORED,
        json_schema_extra={"allowed": f"at most {_MOST_IGNORED} rectangles, each {_SIDES}"},
    )

    @property
    def roi(self) -> Region | None:
        """The region; None is the whole frame."""
        return None if self.region is None else Region(*self.region)

    @model_validator(mode="after")
    def _has_an_area(self) -> Self:
        if any(0 in sides[2:] for sides in (self.region or [0, 0, 1, 1], *self.ignored)):
            problem = "a rectangle without an area; draw it again"
            raise ValueError(problem)
        return self


class Draft(Section):
    """All decisions, under the names that they have in the configuration.

    Attributes:
        zones: One without a name, or several with one each.
        thrown_out: Collected images that are not to be taught.
        taught: Number of the teaching whose bundles are used; 0 before the first.
    """

    camera: CameraConfig | None = None
    zones: list[ZoneDraft] = Field(
        default=[ZoneDraft()],
        min_length=1,
        max_length=_MOST_ZONES,
        json_schema_extra={"allowed": f"a list of 1 to {_MOST_ZONES} zones"},
    )
    trigger: TriggerConfig = TriggerConfig()
    false_reject_rate: float = Field(default=0.01, gt=0, le=0.5)
    thrown_out: list[Annotated[str, Field(max_length=_LONGEST_NAME)]] = Field(
        default=[],
        max_length=_MOST_THROWN_OUT,
        json_schema_extra={"allowed": f"at most {_MOST_THROWN_OUT} images, with names of at most {_LONGEST_NAME}"},
    )
    station: StationConfig = StationConfig()
    mqtt: MqttConfig = MqttConfig()
    taught: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _parts_stand_still(self) -> Self:
        if self.trigger.source == "passing":
            problem = (
                "this page cannot teach from a belt that does not stop; use shiftwatch-calibrate fit CAMERA --passing"
            )
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _zones_have_names(self) -> Self:
        names = [zone.name for zone in self.zones]
        if len(names) > 1 and (None in names or len(set(names)) < len(names)):
            problem = "several zones need a name each, all different"
            raise ValueError(problem)
        return self


def usable(model: type[S], values: Mapping[str, Any], folder: Path) -> S:
    """What the page has sent, checked; relative paths start at ``folder``.

    Raises:
        SetupError: Says in one line what is wrong.
    """
    try:
        return loader.validated(model, values, folder, "", list(not_of_a_file(values)))
    except ConfigError as error:
        problems = "; ".join(error.problems)
        raise SetupError(what=f"this cannot be used: {problems}", remedy="nothing has changed") from error


class Drafts:
    """The draft in a file; safe from any thread.

    Args:
        file: Where it is kept; its folder exists.
        folder: Where relative paths start.
        first: Keys that a new draft begins with.

    Attributes:
        changed: Called after each change, with the names of the keys that changed; it must not change the draft.

    Raises:
        SetupError: The file is there, but cannot be read; or the keys cannot be used.
    """

    def __init__(self, file: Path, folder: Path, first: Mapping[str, Any]) -> None:
        self.changed: Callable[[set[str]], object] = lambda _: None
        self._file = file
        self._folder = folder
        self._lock = threading.Lock()
        self._values, self.draft = self._read() if file.exists() else (dict(first), usable(Draft, first, folder))

    @property
    def values(self) -> Mapping[str, Any]:
        """What was decided, as YAML has it; what has its default is left out."""
        return self._values

    def change(self, **values: object) -> Draft:
        """Take these keys instead of those before.

        Raises:
            SetupError: They are not usable, or the file cannot be written; nothing has changed.
        """
        with self._lock:
            return self._change(values)

    def throw_out(self, names: Collection[str], *, is_out: bool) -> Draft:
        """Leave collected images out, or take them back; raises SetupError as `change`."""
        with self._lock:
            others = [each for each in self.draft.thrown_out if each not in names]
            return self._change({"thrown_out": [*others, *names] if is_out else others})

    def _change(self, values: Mapping[str, object]) -> Draft:
        new = {**self._values, **values}
        draft = usable(Draft, new, self._folder)
        try:
            replace_file(self._file, yaml_text(new).encode(), 0o600)  # a camera's address may hold a password
        except OSError as error:
            raise SetupError(
                what=f"cannot write {self._file}: {error.strerror}",
                remedy="free space there, or fix its permissions; nothing has changed",
            ) from error
        names = {name for name in values if json.dumps(values[name]) != json.dumps(self._values.get(name))}
        self._values, self.draft = new, draft
        self.changed(names)
        return draft

    def _read(self) -> tuple[dict[str, Any], Draft]:
        try:
            values = yaml.safe_load(self._file.read_text(encoding="utf-8"))
            draft = usable(Draft, values, self._folder)
        except (OSError, ValueError, RecursionError, yaml.YAMLError, SetupError) as error:
            why = error.what if isinstance(error, SetupError) else str(error)
            raise SetupError(
                what=f"cannot read {self._file}: {why}", remedy="remove it, to begin the set-up again"
            ) from error
        return values or {}, draft
