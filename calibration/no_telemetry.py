"""Switches the telemetry of libraries off: imported first, before any of them, and inherited by all child processes.

ONNX Runtime for Linux writes an identity of the device into the home and sends telemetry; its own
`disable_telemetry_events()` comes too late.
"""

import os

os.environ.update(ORT_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
