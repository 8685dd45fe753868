"""Speech tokens: quantisers."""
