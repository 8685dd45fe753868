"""What is said: text made into spoken words and phonemes, word by word as it comes."""
