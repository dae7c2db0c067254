"""One HTML page about a bundle."""
