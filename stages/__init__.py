"""The pipeline's stages, one Typer command per file, in the order in which they run."""
