"""Ordinary recommenders and plain statistics, scored on the same rows as the language model."""
