"""What calibration writes and the agent opens: a folder with a manifest, never changed afterwards."""
