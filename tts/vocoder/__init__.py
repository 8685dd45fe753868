"""Frames to samples."""
