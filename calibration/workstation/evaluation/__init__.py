"""How well a bundle does on labelled images: metrics, plots, benchmarks."""
