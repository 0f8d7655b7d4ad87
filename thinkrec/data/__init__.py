"""Datasets, readers, the embedded world, splits and histories: raw ratings in, one table of interactions out."""
