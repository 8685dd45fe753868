"""Deepgram's endpoint for recordings; its live protocol is in `dialects`."""
