"""A rendered production line: shows the whole system without a camera."""
