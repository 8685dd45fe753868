"""Searches: from an encoder's frames to tokens."""
