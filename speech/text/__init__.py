"""Text: languages."""
