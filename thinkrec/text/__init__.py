"""From items and interactions to tokens: item text, roles in the vocabulary, the prompt layouts, pretraining text."""
