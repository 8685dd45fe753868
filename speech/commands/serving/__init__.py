"""What `loquent serve` is made of: its engines, and what its operator decides."""
