"""Sparkplug B 3.0, over a connection of its own."""
