"""Training of the encoders of Patch SVDD (Yi and Yoon 2020)."""
