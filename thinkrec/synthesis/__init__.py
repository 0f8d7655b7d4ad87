"""Everything that asks a teacher: keywords, prompts, the client, the embedded teacher and the reflect loop."""
