"""Recordings as a recogniser reads them: log-mel windows, with or without their pauses."""
