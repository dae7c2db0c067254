"""Sections about what is looked at, and how it is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from agent.config.types import CameraSource, FilePath, Level, NumberOrAuto, Section

if TYPE_CHECKING:
    from typing_extensions import Self


class StationConfig(Section):
    """Where the station stands: the levels of the topic root."""

    enterprise: Level = Field(default="enterprise", description="Topic level 1.")
    site: Level = Field(default="site", description="Topic level 2.")
    area: Level = Field(default="area", description="Topic level 3.")
    line: Level = Field(default="line", description="Topic level 4.")
    cell: Level = Field(default="cell", description="Topic level 5; `vision` follows it.")
    name: Level = Field(default="station", description="Name of this station, the last topic level.")


class CameraConfig(Section):
    """Where frames come from."""

    source: CameraSource = Field(description="Camera, stream or files.")
    playback: Literal["realtime", "fast"] = Field(
        default="realtime",
        description="Of files: at their own rate, dropping what is late, as a camera does; or each frame, unhurried.",
    )
    frames_per_s: float | None = Field(
        default=None, gt=0, le=1000, description="Rate of files instead of their own; rate asked of a numbered device."
    )
    loop: bool = Field(default=False, description="Start files again at their end.")
    width: int | None = Field(
        default=None,
        ge=1,
        le=16384,
        description="Asked of a device, with `height`; live frames of another are dropped.",
    )
    height: int | None = Field(default=None, ge=1, le=16384, description="As `width`.")
    format: str | None = Field(
        default=None,
        pattern=r"^[ -~]{4}$",
        description="FOURCC asked of a device, such as MJPG or YUYV.",
        json_schema_extra={"allowed": "four characters"},
    )
    exposure: NumberOrAuto = Field(
        default=None, description="Asked of a device, in its driver's unit (mostly 0.1 ms); none leaves it as it is."
    )
    white_balance: NumberOrAuto = Field(default=None, description="Asked of a device, in Kelvin.")
    gain: float | None = Field(default=None, ge=0, description="Asked of a device, in its driver's unit.")
    buffer_frames: int | None = Field(
        default=None,
        ge=1,
        le=10,
        description="Frames that the driver of a device may keep; few are fresh, many smooth.",
    )
    open_timeout_s: float = Field(
        default=10.0, ge=0.5, le=600, description="Of live sources: from opening to the first frame; then it is lost."
    )
    read_timeout_s: float = Field(
        default=2.0, ge=0.1, le=600, description="Of live sources: between two frames; then it is lost, and reopened."
    )

    @model_validator(mode="after")
    def _whole_size(self) -> Self:
        if (self.width is None) != (self.height is None):
            problem = "width and height belong together; give both or neither"
            raise ValueError(problem)
        return self


class TriggerConfig(Section):
    """Which frames show a part, and how many of them."""

    source: Literal["every_frame", "command", "motion"] = Field(
        default="every_frame",
        description="Each frame is a part; or the line names each by `cmd/trigger`, and the next frame is its; or what "
        "has moved and then stands still is one.",
    )
    every: int = Field(
        default=1, ge=1, le=100_000, description="With `every_frame`: each n-th frame of the camera is a part."
    )
    delay_ms: int = Field(default=0, ge=0, le=60_000, description="From a trigger until its part is before the camera.")
    settled_ms: int = Field(
        default=200, ge=0, le=60_000, description="With `motion`: so long a part stands still before it is looked at."
    )
    unsettled_after_s: float = Field(
        default=10.0,
        ge=0.1,
        le=3600,
        description="With `motion`: what moves for so long is a part without a verdict, once until it stands still.",
    )
    empty: FilePath | None = Field(
        default=None,
        description="With `motion`: a picture of the empty place, as the camera gives it; else what settles is a part.",
    )
    frames_per_part: int = Field(
        default=1,
        ge=1,
        le=100,
        description="Frames that a part has, one after the other; together they are one result.",
    )
    combine: Literal["worst", "median", "best"] = Field(
        default="worst", description="Which of them decides: the highest score, the middle one, or the lowest."
    )
    least_decidable: int | None = Field(
        default=None,
        ge=1,
        description="With fewer frames that can be trusted and scored a part is NotDecidable; else it needs more than "
        "half.",
    )

    @model_validator(mode="after")
    def _keys_that_fit(self) -> Self:
        if self.source != "every_frame" and self.every > 1:
            problem = f"every is given, but source is {self.source}; remove it, or set source to every_frame"
        elif self.source != "motion" and self.empty is not None:
            problem = f"empty is given, but source is {self.source}; remove it, or set source to motion"
        elif (self.least_decidable or 1) > self.frames_per_part:
            problem = f"least_decidable is {self.least_decidable} of {self.frames_per_part} frames; give no more"
        else:
            return self
        raise ValueError(problem)


class PlcConfig(Section):
    """The short message for the controller of the line."""

    deadline_ms: int = Field(
        default=100,
        ge=5,
        le=60_000,
        description="After a trigger, or a frame where nobody triggers: then the controller hears `valid: false`.",
    )


class CommandsConfig(Section):
    """What may be commanded over MQTT; on the device itself everything may."""

    accept: list[Literal["trigger", "pause", "resume", "threshold", "rollback", "recalibrate", "mark"]] = Field(
        default=["trigger", "pause", "resume"], description="Commands that are accepted."
    )
    token_file: FilePath | None = Field(
        default=None, description="File with a token that all of them but `trigger` must bring."
    )


class DecisionConfig(Section):
    """When a score is a defect, and when defects are an alert."""

    threshold: float | None = Field(
        default=None, gt=0, description="Score above which a part is NotOK; else the bundle's."
    )
    raise_after: int = Field(default=1, ge=1, description="NotOK results that begin an alert.")
    raise_within: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="So many decidable results, the last ones, must hold them; else they must come in a row.",
    )
    clear_after: int = Field(default=3, ge=1, description="Clear results in a row that end it.")
    clear_ratio: float = Field(
        default=0.9, gt=0, le=1, description="A result is clear at or below this share of the threshold."
    )
    update_every_s: float = Field(
        default=10.0,
        ge=0.1,
        description="How often an alert is repeated while NotOK results come; at once when its severity rises.",
    )

    @model_validator(mode="after")
    def _room_for_all(self) -> Self:
        if self.raise_within is not None and self.raise_within < self.raise_after:
            problem = (
                f"raise_within {self.raise_within} cannot hold raise_after {self.raise_after}; give as many or more"
            )
            raise ValueError(problem)
        return self


class ChecksConfig(Section):
    """Frames that cannot be trusted: dark, over-exposed, blocked, blurred, frozen, moved, of another size."""

    enabled: bool = Field(default=True, description="Hold each frame against the good ones of calibration.")
    alert_after_s: float = Field(
        default=2.0, ge=0, le=3600, description="So long frames cannot be trusted before that is an alert."
    )
    frozen_after: int = Field(
        default=10, ge=1, le=10_000, description="Frames in a row of a live camera that equal the one before: frozen."
    )


class DriftConfig(Section):
    """Good parts and their light that slowly become others than calibration saw: a warning."""

    enabled: bool = Field(
        default=True,
        description="Hold OK parts against calibration; built to warn without a cause once a year at most.",
    )


class RecalibrationConfig(Section):
    """Learning on from parts that come by, on command."""

    parts: int = Field(default=200, ge=10, le=5000, description="Parts that are collected, unless the command says.")
    old_weight: float = Field(
        default=2.0, ge=0, le=1000, description="What an image of the bundle counts against one of these parts."
    )
    shadow_parts: int = Field(
        default=100, ge=0, le=5000, description="Parts that both bundles judge before the new one takes over."
    )
    min_detection: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="So large a share of the defects that the old bundle finds must be found by the new one.",
    )
    quiet_s: float = Field(
        default=30.0, ge=1, le=86_400, description="It is given up when for so long no part could be collected."
    )
    keep_bundles: int = Field(
        default=5, ge=1, le=1000, description="Bundles made here that are kept to roll back to; older ones go."
    )
