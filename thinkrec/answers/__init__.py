"""What answers of a finished project are made of."""
