"""From items and interactions to tokens: item text, the vocabulary and its roles, the prompt layouts."""
