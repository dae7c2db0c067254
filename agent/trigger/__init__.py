"""Which frames show a part, and the handshake with the PLC."""
