"""The command `shiftwatch-calibrate`."""
