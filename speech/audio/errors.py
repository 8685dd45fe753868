"""What is wrong with audio."""

from __future__ import annotations


class AudioError(ValueError):
    """Audio that is missing, empty, damaged, or not of the form that was asked for."""
