"""The synthetic world: a generator that knows why its users like what they like."""
