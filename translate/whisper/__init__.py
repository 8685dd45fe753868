"""Speech to English text with Whisper's own translation."""
