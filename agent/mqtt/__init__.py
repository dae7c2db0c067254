"""Everything that is said over plain MQTT: one connection, the outbox drained over it, what is said now or never."""
