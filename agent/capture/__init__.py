"""`shiftwatch-agent capture`: images of good parts from a camera, as calibration needs them."""
