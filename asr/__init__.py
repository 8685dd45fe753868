"""Speech recognition: Whisper on the streaming runtime."""
