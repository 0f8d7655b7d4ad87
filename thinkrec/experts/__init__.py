"""User groups and the weights of the experts per user."""
