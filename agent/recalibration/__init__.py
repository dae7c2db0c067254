"""A new bundle on the device, from parts that the station has seen."""
