"""The way of a frame through the loop: score, combine, decide, record."""
