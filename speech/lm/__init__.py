"""Causal language models, shared by whatever reads or writes text or tokens."""
