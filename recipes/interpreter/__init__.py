"""Teaches a language model when to translate."""
