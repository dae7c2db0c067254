"""What is on the wire: records, payloads and topics."""
