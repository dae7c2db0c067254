"""Sections about what is inspected, and how it is decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from agent.config.types import FilePath, Level, Section
from calibration.statistics.forecast import LEAST_DETECTION

if TYPE_CHECKING:
    from typing_extensions import Self

_LEAST_PART_PX, _MOST_PART_PX = 8, 4096


class StationConfig(Section):
    """The station's position in the plant: the levels of the topic root."""

    enterprise: Level = Field(default="enterprise", description="Topic level 1.")
    site: Level = Field(default="site", description="Topic level 2.")
    area: Level = Field(default="area", description="Topic level 3.")
    line: Level = Field(default="line", description="Topic level 4.")
    cell: Level = Field(default="cell", description="Topic level 5; `vision` follows it.")
    name: Level = Field(default="station", description="Name of this station, the last topic level.")


class TriggerConfig(Section):
    """Which frames show a part, and how many of them."""

    source: Literal["every_frame", "command", "motion", "passing"] = Field(
        default="every_frame",
        description="Each frame is a part; or the line names each part with `cmd/trigger`, and the next frame shows "
        "it; or what has moved and then stands still is a part; or what passes on a belt that does not stop.",
    )
    part_px: list[int] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="With `passing`: width and height of the image of a part, as it was taught (`fit --passing`).",
        json_schema_extra={"allowed": "two whole numbers, as in [160, 160]"},
    )
    turn: bool = Field(
        default=False, description="With `passing`: turn each part so that its long side is upright, as it was taught."
    )
    every: int = Field(
        default=1, ge=1, le=100_000, description="With `every_frame`: each n-th frame of the camera is a part."
    )
    delay_ms: int = Field(
        default=0,
        ge=0,
        le=60_000,
        description="From a trigger until its part is before the camera; `plc.deadline_ms` includes it.",
    )
    settled_ms: int = Field(
        default=200,
        ge=0,
        le=60_000,
        description="With `motion`: how long a part must stand still before it is inspected.",
    )
    unsettled_after_s: float = Field(
        default=10.0,
        ge=0.1,
        le=3600,
        description="With `motion`: what moves for this long is a part without a verdict, once until it stands still.",
    )
    empty: FilePath | None = Field(
        default=None,
        description="With `motion`: image of the empty place, as the camera gives it; else all that settles is a part.",
    )
    frames_per_part: int = Field(
        default=1, ge=1, le=100, description="Consecutive frames of a part; together they give one result."
    )
    combine: Literal["worst", "median", "best"] = Field(
        default="worst", description="Which of these frames decides: the highest score, the middle one, or the lowest."
    )
    least_decidable: int | None = Field(
        default=None,
        ge=1,
        description="Frames that must be trusted and scored, or the part is NotDecidable; by default more than half.",
    )

    @model_validator(mode="after")
    def _keys_fit_source(self) -> Self:
        if self.source != "every_frame" and self.every > 1:
            problem = f"every is given, but source is {self.source}; remove it, or set source to every_frame"
        elif (self.source == "passing") != (self.part_px is not None):
            problem = "part_px and source: passing belong together; give both, as fit --passing says at its end"
        elif self.part_px is not None and not all(_LEAST_PART_PX <= side <= _MOST_PART_PX for side in self.part_px):
            problem = f"part_px {self.part_px} is not allowed; give {_LEAST_PART_PX} to {_MOST_PART_PX} pixels"
        elif self.source == "passing" and self.frames_per_part > 1:
            problem = "frames_per_part is given, but with source passing the best frame of a part is taken; remove it"
        elif self.source != "motion" and self.empty is not None:
            problem = f"empty is given, but source is {self.source}; remove it, or set source to motion"
        elif (self.least_decidable or 1) > self.frames_per_part:
            problem = f"least_decidable is {self.least_decidable} of {self.frames_per_part} frames; give no more"
        elif self.source == "motion" and self.settled_ms >= self.unsettled_after_s * 1000:
            problem = (
                f"settled_ms {self.settled_ms} is not below unsettled_after_s {self.unsettled_after_s:g}: every part "
                "would be reported as unsettled before it has settled; lower settled_ms, or raise unsettled_after_s"
            )
        else:
            return self
        raise ValueError(problem)


class PlcConfig(Section):
    """The short message for the controller of the line."""

    deadline_ms: int = Field(
        default=100,
        ge=5,
        le=60_000,
        description="Time after a trigger (or frame) after which the controller receives `valid: false`.",
    )


class CommandsConfig(Section):
    """Commands that are accepted over MQTT; on the device itself all are."""

    accept: list[Literal["trigger", "pause", "resume", "threshold", "rollback", "recalibrate", "mark"]] = Field(
        default=["trigger", "pause", "resume"], description="Commands that are accepted."
    )
    token_file: FilePath | None = Field(
        default=None, description="File with a token that all of them but `trigger` must contain."
    )


class DecisionConfig(Section):
    """When a score is a defect, and when defects are an alert."""

    threshold: float | None = Field(
        default=None, gt=0, description="Score above which a part is NotOK; by default the bundle's."
    )
    raise_after: int = Field(default=1, ge=1, description="NotOK results that raise an alert.")
    raise_within: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Number of the latest decidable results that may contain them; by default they must come in a row.",
    )
    clear_after: int = Field(default=3, ge=1, description="Clear results in a row that end it.")
    clear_ratio: float = Field(
        default=0.9, gt=0, le=1, description="A result is clear at or below this share of the threshold."
    )
    update_every_s: float = Field(
        default=10.0,
        ge=0.1,
        le=86_400,
        description="Interval at which an alert is repeated while NotOK results come; at once when its severity rises.",
    )

    @model_validator(mode="after")
    def _window_holds_all(self) -> Self:
        if self.raise_within is not None and self.raise_within < self.raise_after:
            problem = (
                f"raise_within {self.raise_within} cannot hold raise_after {self.raise_after}; give as many or more"
            )
            raise ValueError(problem)
        return self


class ChecksConfig(Section):
    """Frames that cannot be trusted: dark, over-exposed, blocked, blurred, frozen, moved, of another size."""

    enabled: bool = Field(default=True, description="Compare each frame with the good ones of calibration.")
    alert_after_s: float = Field(
        default=2.0, ge=0, le=3600, description="Time without a trustworthy frame that raises an alert."
    )
    frozen_after: int = Field(
        default=10,
        ge=1,
        le=10_000,
        description="Number of identical frames in a row after which a live camera is frozen.",
    )


class DriftConfig(Section):
    """Warning when good parts or their light slowly become different from calibration."""

    enabled: bool = Field(
        default=True, description="Compare OK parts with calibration; designed for at most one false warning a year."
    )


class RecalibrationConfig(Section):
    """Recalibration with current parts, on command."""

    parts: int = Field(default=200, ge=10, le=5000, description="Parts to collect, unless the command names a number.")
    old_weight: float = Field(
        default=2.0, ge=0, le=1000, description="Weight of an image of the bundle, relative to one of these parts."
    )
    shadow_parts: int = Field(
        default=100,
        ge=0,
        le=5000,
        description="Parts that both bundles score before the new one becomes active (shadow run).",
    )
    min_detection: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="Share of the defects found by the old bundle that the new one must find, too.",
    )
    least_detection: float = Field(
        default=LEAST_DETECTION,
        ge=0,
        le=1,
        description="Share of the largest synthetic defects that a new bundle must find, whatever the old one found.",
    )
    quiet_s: float = Field(
        default=30.0,
        ge=1,
        le=86_400,
        description="Time without a part to collect after which the recalibration is given up.",
    )
    keep_bundles: int = Field(
        default=5, ge=1, le=1000, description="Bundles made here that are kept for a rollback; older ones are removed."
    )
