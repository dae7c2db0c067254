"""Commands to a running agent, over MQTT and on the device."""
