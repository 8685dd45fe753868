"""Training data: manifests, augmentation, batches."""
