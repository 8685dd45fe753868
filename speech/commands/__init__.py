"""The subcommands of ``loquent``, one module each, and what they share."""
