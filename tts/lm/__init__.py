"""Text to speech tokens: a language model."""
