"""Figures of the loop, and the HTTP endpoint that serves metrics to Prometheus."""
