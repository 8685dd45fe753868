"""Streams that outlive their connection: a client resumes by token, here, after a restart, or in another process."""
