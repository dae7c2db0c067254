"""From a bundle to an engine on this device: which backend, its cache, its latency."""
