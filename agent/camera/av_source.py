"""Streams and videos through PyAV: each frame has the time that the stream says, and its own size."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import av

from agent.camera.contract import Stamp
from agent.camera.shown_source import without_password
from agent.errors import CameraError
from calibration.errors import DatasetError
from calibration.imaging.image_files import decode_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from calibration.imaging.preprocess import Image

_VIDEO_FRAMES_PER_S = 25.0
_NS = 1_000_000_000
av.logging.set_level(av.logging.PANIC)  # what FFmpeg prints may contain addresses with passwords


class AvSource:
    """See Source. JPEG frames are decoded as image files are; of other codecs, a damaged frame cannot be decoded.

    Args:
        source: A video, or an rtsp or http(s) URL.
        live: It is a URL.
        frames_per_s: Rate of a file instead of its own.
        open_timeout_s: For URLs, as the next one.
        read_timeout_s: Longest time between two packets.
    """

    refused_settings: Sequence[str] = ()
    is_rescaled = False

    def __init__(
        self, source: str, frames_per_s: float | None, open_timeout_s: float, read_timeout_s: float, *, live: bool
    ) -> None:
        self.name = without_password(source)
        self.live = live
        self.frames_per_s = frames_per_s or _VIDEO_FRAMES_PER_S
        self.stamp: Stamp | None = None
        self._source = source
        self._asked_frames_per_s = frames_per_s
        self._timeouts_s = (open_timeout_s, read_timeout_s)
        self._container: Any = None
        self._packets: Iterator[Any] = iter(())
        self._stream: Any = None
        self._waiting: deque[Any] = deque()
        self._grabbed: Any = None
        self._count = 0

    def open(self) -> None:
        """See Source."""
        # UDP, FFmpeg's default, tears frames on a busy network.
        options = {"rtsp_transport": "tcp"} if self._source.startswith("rtsp") else {}
        try:
            self._container = av.open(self._source, options=options, timeout=self._timeouts_s if self.live else None)
            self._stream = next(iter(self._container.streams.video), None)
        except (av.error.FFmpegError, ValueError) as error:
            raise self._refusal(str(getattr(error, "strerror", "") or "it is no video")) from error
        if self._stream is None:
            raise self._refusal()
        self._stream.thread_type = "SLICE" if self.live else "AUTO"  # by frames, threads hold several of them back
        if self._asked_frames_per_s is None and not self.live:
            self.frames_per_s = float(self._stream.average_rate or _VIDEO_FRAMES_PER_S)
        self._packets = self._container.demux(self._stream)
        self._waiting.clear()
        self._count = 0

    def grab(self) -> bool:
        """See Source."""
        while not self._waiting:
            try:
                packet = next(self._packets, None)
            except av.error.FFmpegError:
                return False
            if packet is None:
                return False
            self._waiting.extend(self._decoded(packet))
        self._grabbed = self._waiting.popleft()
        self._count += 1
        return True

    def retrieve(self) -> Image | None:
        """See Source."""
        frame = self._grabbed
        self.stamp = None
        if frame is None:
            return None
        try:
            is_jpeg = isinstance(frame, av.Packet)
            image: Image = decode_image(bytes(frame), "the frame") if is_jpeg else frame.to_ndarray(format="bgr24")
        except (DatasetError, av.error.FFmpegError, ValueError):
            return None
        if frame.pts is not None and frame.time_base is not None:
            self.stamp = Stamp(self._count - 1, round(frame.pts * frame.time_base * _NS))
        return image

    def trigger(self) -> None:
        """See Source; nothing here waits for it."""

    def close(self) -> None:
        """See Source."""
        self._packets = iter(())
        self._waiting.clear()
        if self._container is not None:
            self._container.close()
            self._container = None

    def _decoded(self, packet: Any) -> Sequence[Any]:  # noqa: ANN401 - PyAV has no base of both
        """The frames in a packet, a JPEG as it is; None for one that cannot be decoded."""
        if self._stream.codec_context.name == "mjpeg":
            return [packet] if packet.size else []
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            return [None]
        return [None if frame.is_corrupt else frame for frame in frames]

    def _refusal(self, why: str = "it has no video") -> CameraError:
        if not self.live:
            return CameraError(
                what=f"{self.name} does not open as a video: {why}",
                remedy="check the path, that this user may read it, and that it is a video",
            )
        return CameraError(
            what=f"stream {self.name} does not open: {why}",
            remedy="check address, port, path, user and password, and that no other viewer holds the stream",
        )
