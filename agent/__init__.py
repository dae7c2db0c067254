"""The agent: watches a camera with a calibrated network and tells the line over MQTT."""

import calibration.no_telemetry  # noqa: F401 - before any library
