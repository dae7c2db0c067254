"""Whether good parts slowly change."""
