"""The agent: watches a camera with a calibrated network and tells the line over MQTT."""
