"""`shiftwatch-agent setup`: from a camera to a running station, step by step in a browser."""
