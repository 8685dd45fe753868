"""English words to phonemes: tokens, their parts of speech, a lexicon with rules, and a net for unknown words."""
