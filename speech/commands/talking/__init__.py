"""Conversations by voice on the command line."""
