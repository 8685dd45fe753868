"""The Wyoming protocol, by which Home Assistant and its satellites use speech services: events over TCP."""
