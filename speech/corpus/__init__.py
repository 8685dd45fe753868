"""Corpora: many recordings or texts through one model, on one machine or on a cluster, resumed where they stopped."""
