"""Policies of simultaneous speech recognition and translation."""
