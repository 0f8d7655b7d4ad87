"""Collaborative features and causal statistics of interactions."""
