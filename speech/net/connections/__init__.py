"""One connection of a client: what is read, what is told, what is sent."""
