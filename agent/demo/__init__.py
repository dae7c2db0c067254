"""`shiftwatch-agent demo`: a rendered conveyor, calibrated and inspected."""
