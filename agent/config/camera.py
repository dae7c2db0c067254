"""The section about the camera."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from agent.camera.sources import kind_of
from agent.config.types import CameraSource, NumberOrAuto, Section

if TYPE_CHECKING:
    from typing_extensions import Self

_FOURCC = 4  # characters


class CameraConfig(Section):
    """Where frames come from."""

    source: CameraSource = Field(description="Camera, stream or files.")
    playback: Literal["realtime", "fast"] = Field(
        default="realtime",
        description="Files: at their own rate, dropping late frames like a camera; or every frame at full speed.",
    )
    frames_per_s: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="Rate of files instead of their own; rate requested from a device or a GenICam camera.",
    )
    loop: bool = Field(default=False, description="Repeat files at their end.")
    width: int | None = Field(
        default=None,
        ge=1,
        le=16384,
        description="Requested from a device or a GenICam camera, with `height`; other live frames are dropped.",
    )
    height: int | None = Field(default=None, ge=1, le=16384, description="As `width`.")
    format: str | None = Field(
        default=None,
        pattern=r"^[ -~]{4,20}$",
        description="Requested from a device, as FOURCC: MJPG, YUYV; from a GenICam camera: Mono8, BayerRG8, RGB8.",
        json_schema_extra={"allowed": "four characters for a device, a pixel format for a GenICam camera"},
    )
    exposure: NumberOrAuto = Field(
        default=None,
        description="Requested from a device, in its driver's unit (mostly 0.1 ms; GenICam: µs); none leaves it.",
    )
    white_balance: NumberOrAuto = Field(default=None, description="Requested from a device, in Kelvin.")
    gain: float | None = Field(
        default=None, ge=0, description="Requested from a device, in its driver's unit (GenICam: dB)."
    )
    buffer_frames: int | None = Field(
        default=None,
        ge=1,
        le=10,
        description="Frames that the driver of a device may buffer; few give fresh frames, many a steady rate.",
    )
    offset_x: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="GenICam: left edge of the region of `width` and `height` that the camera sends, sensor pixels.",
    )
    offset_y: int | None = Field(default=None, ge=0, le=65_535, description="GenICam: its top edge.")
    packet_bytes: int | None = Field(
        default=None,
        ge=576,
        le=16_384,
        description="GigE Vision: size of a packet, such as 1500 or 9000; by default the largest that arrives.",
    )
    decoder: Literal["opencv", "av"] = Field(
        default="opencv",
        description="Streams and videos: `av` reads them through PyAV (extra `av`), with the time of each frame.",
    )
    trigger: str = Field(
        default="off",
        pattern=r"^[A-Za-z][A-Za-z0-9]{1,30}$",
        description="GenICam: `off` sends frames all the time; `software` one for each `cmd/trigger`; the name of an "
        "input, such as `Line1`, one for each of its signals.",
        json_schema_extra={"allowed": "off, software, or the name of an input such as Line1"},
    )
    open_timeout_s: float = Field(
        default=10.0,
        ge=0.5,
        le=600,
        description="Live sources: longest time from opening to the first frame; then the camera is lost.",
    )
    read_timeout_s: float = Field(
        default=2.0,
        ge=0.1,
        le=600,
        description="Live sources: longest time between two frames; then the camera is lost, and reopened.",
    )

    @model_validator(mode="after")
    def _complete_size(self) -> Self:
        if (self.width is None) != (self.height is None):
            problem = "width and height belong together; give both or neither"
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _keys_fit_source(self) -> Self:
        if self.decoder == "av" and kind_of(self.source) not in {"stream", "path"}:
            problem = "decoder is av, but source is no stream and no video; remove it"
            raise ValueError(problem)
        if kind_of(self.source) == "genicam":
            return self
        for key in ("offset_x", "offset_y", "packet_bytes", "trigger"):
            if key in self.model_fields_set and getattr(self, key) not in {None, "off"}:
                problem = f"{key} is given, but source is no GenICam camera; remove it, or set source to genicam:SERIAL"
                raise ValueError(problem)
        if self.format is not None and len(self.format) != _FOURCC:
            problem = f"format {self.format} is not four characters, as MJPG and YUYV are"
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _waits_for_the_next_frame(self) -> Self:
        interval_s = 1 / (self.frames_per_s or math.inf)
        if interval_s >= self.read_timeout_s and kind_of(self.source) in {"device", "genicam"}:
            problem = (
                f"frames_per_s {self.frames_per_s:g} asks for a frame every {interval_s:g} s, but after read_timeout_s "
                f"{self.read_timeout_s:g} without one the camera is lost; give read_timeout_s more than {interval_s:g}"
            )
            raise ValueError(problem)
        return self
