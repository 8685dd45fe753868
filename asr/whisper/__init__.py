"""Whisper: model, checkpoints, adapters, and recognition of recordings and live audio."""
