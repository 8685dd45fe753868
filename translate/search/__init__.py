"""How drafts are found: greedily or with a beam, the same for every model."""
