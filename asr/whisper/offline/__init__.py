"""Whisper on whole recordings."""
