"""Encoder-decoder models that read a word at a time and never read one twice."""
