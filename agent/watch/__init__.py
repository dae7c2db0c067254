"""`shiftwatch-agent watch`: what stations publish, in a terminal."""
