"""Pixels in, pixels out: regions, preprocessing, alignment, masks, heat maps, synthetic defects."""
