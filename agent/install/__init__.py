"""`shiftwatch-agent install`: the systemd units of a station."""
