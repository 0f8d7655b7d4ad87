"""Asking an OpenAI-compatible endpoint, and the offline teacher."""
