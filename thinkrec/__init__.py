"""ThinkRec: thinking-based recommendation with language models, as a reproducible pipeline."""
