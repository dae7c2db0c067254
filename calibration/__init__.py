"""Calibration: what good parts look like, learnt from good images, and the one network that applies it."""
