"""Baselines, intervals, tables, reason metrics and plots."""
