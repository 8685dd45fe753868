"""Models that write a whole translation in one pass, so that translating again is cheap."""
