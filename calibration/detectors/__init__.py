"""Detectors: one file a method. Each turns moments of good features into the head of the fused network."""
