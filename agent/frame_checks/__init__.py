"""Whether a frame can be trusted, before it is scored."""
