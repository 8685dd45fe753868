"""Marian's models of translation: those of OPUS-MT and Hugging Face, of Marian itself, and of Firefox (Bergamot)."""
