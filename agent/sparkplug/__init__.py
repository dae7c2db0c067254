"""The station as a Sparkplug B 3.0 edge node, over a connection of its own."""
