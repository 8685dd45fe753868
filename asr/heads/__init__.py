"""Output heads: CTC and the transducer."""
