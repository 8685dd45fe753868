"""Streams over the network: protocol, server, client, and a folder for each foreign protocol."""
