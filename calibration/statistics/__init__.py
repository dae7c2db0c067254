"""The formulas, in NumPy: moments, covariances, leave-one-out scores, thresholds."""
