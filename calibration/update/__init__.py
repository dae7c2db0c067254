"""A new bundle from existing ones: updated on the device, or merged from several stations."""
