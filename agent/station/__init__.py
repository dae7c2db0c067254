"""One station: put together from its configuration, run, and reported on."""
