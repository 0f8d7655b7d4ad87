"""Timings, run by `make bench`: A against B in one process, in turn, reported as ratios. Never asserted."""
