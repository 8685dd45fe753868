"""What other speech servers' clients speak over a websocket: one file for each protocol."""
