"""Training of Patch SVDD's encoders: what only the workstation needs, with torch."""
