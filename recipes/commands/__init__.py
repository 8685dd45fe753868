"""The data of the commands model: corpora and a grammar."""
