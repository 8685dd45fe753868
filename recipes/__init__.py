"""Recipes: data, training and fine-tuning of loquent's models. `loquent train` reaches them."""
