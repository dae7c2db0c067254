"""The agent: watches a camera with a calibrated network and tells the line over MQTT."""

import calibration as _switches_telemetry_off  # noqa: F401 - before any library is imported
