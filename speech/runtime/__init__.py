"""The runtime: streams of any task, stepped in batches."""
