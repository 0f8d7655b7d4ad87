"""A finished project over HTTP."""
