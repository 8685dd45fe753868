"""When words are emitted: how to measure it, and how to train for it."""
