"""What the commands that translate share: flags and models, files, and two languages side by side."""
