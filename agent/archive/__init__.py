"""The archive of images: written by the station, read by people, the live page and recalibration."""
