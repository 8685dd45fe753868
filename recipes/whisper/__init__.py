"""Recipes of Whisper: adapters for live audio."""
