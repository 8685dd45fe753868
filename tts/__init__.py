"""Speech synthesis: text in, word by word, and speech out."""
