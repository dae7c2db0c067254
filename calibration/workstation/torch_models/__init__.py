"""Backbones that need torch: timm models, and the encoders of Patch SVDD."""
