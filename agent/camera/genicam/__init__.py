"""Cameras of any vendor that speak GenICam: over GigE Vision or USB3 Vision, or through a vendor's own library."""
