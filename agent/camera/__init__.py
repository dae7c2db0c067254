"""Frames from a camera that may hang, crash or vanish; each dropped frame is counted.

A live source is opened, grabbed and decoded in a child process, which can be killed whatever its driver does
(`process_camera`, `capture_main`); frames come through shared memory (`shared_frames`). Files are read in this process
(`file_camera`). In both cases a thread keeps the newest frame for the loop (`newest_frame`).
"""

from agent.camera.contract import Camera, CameraState, Frame, StationCamera
from agent.camera.factory import open_camera

__all__ = ["Camera", "CameraState", "Frame", "StationCamera", "open_camera"]
