"""What a text says of a history and a target, and whether that is so."""
