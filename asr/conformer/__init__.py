"""The cache-aware Conformer: model, checkpoints and recognition."""
