"""Whisper on live audio."""
