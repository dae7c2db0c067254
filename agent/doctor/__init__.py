"""`shiftwatch-agent doctor`: whether a station can run here, and what to do if it cannot."""
