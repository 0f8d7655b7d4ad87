"""Datasets, readers, the synthetic world, splits and histories: raw ratings in, one table of interactions out."""
