"""Readers of published rating files and of people's own: each opens a `raw.Source`."""
