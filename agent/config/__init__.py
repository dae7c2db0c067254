"""The configuration file of a station."""
