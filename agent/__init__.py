"""The agent: watches a camera with a calibrated network and tells the line over MQTT."""

import calibration.errors  # noqa: F401 - its package switches the telemetry of libraries off, before any is imported
