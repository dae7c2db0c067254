"""Regions of the frame, each with its own bundle and recipe."""
