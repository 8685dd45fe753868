"""Streaming modules and their state: what every model is built from."""
