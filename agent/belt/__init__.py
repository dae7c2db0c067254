"""Parts that pass through the picture on a belt without stopping: found, followed, and each reported once."""
