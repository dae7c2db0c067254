"""Records wait on disk until the broker has them."""
