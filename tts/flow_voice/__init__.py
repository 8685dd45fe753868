"""The voice of loquent: flow matching on words."""
