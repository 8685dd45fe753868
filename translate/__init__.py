"""Simultaneous translation."""
