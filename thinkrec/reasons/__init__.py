"""Reasons: how they are decoded and judged."""
