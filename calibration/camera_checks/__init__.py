"""How good frames look, and the limits beyond which a frame cannot be trusted."""
