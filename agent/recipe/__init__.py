"""What judges a zone of a frame, exchanged as a whole between two frames."""
