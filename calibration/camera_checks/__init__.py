"""Reference statistics of the good frames, and the limits beyond which a frame cannot be trusted."""
