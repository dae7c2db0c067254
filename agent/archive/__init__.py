"""Images of what was inspected, kept on the device."""
