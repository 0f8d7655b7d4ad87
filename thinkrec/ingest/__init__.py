"""Raw ratings and metadata become one table of interactions, split by time, and a table of items."""
