"""Zones: regions of the frame, each with its own bundle."""
