"""Chunk-aware conditional flow matching."""
