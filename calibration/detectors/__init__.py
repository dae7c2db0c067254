"""Detectors: one file per method, and what they share."""
