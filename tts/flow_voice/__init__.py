"""A small voice: prosody of words, chunk-aware flow matching, a causal vocoder."""
