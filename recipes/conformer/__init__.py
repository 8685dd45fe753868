"""Recipes of the Conformer."""
