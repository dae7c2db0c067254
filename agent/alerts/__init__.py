"""When verdicts, the camera or drift become an alert."""
