"""Causal language models as translators that never read a word twice."""
