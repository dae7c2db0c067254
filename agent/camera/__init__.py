"""Frames, newest first, from a camera that may hang, crash or vanish; whatever is left out is counted.

A live source is opened, grabbed and decoded in a child process, which can be killed whatever its driver does
(`process`, `child`); pictures come through shared memory (`slots`). Files are read in this process (`direct`). In both
cases a thread keeps the newest frame for the loop (`newest`).
"""

from agent.camera.contract import Camera, CameraState, Frame
from agent.camera.factory import open_camera

__all__ = ["Camera", "CameraState", "Frame", "open_camera"]
