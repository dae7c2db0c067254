"""The audit log: every command and change, each entry chained to the one before by its hash."""
