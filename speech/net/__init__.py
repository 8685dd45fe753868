"""Streams over the network: protocol, server, client, and one file for each foreign protocol."""
