"""The voice hibari."""
