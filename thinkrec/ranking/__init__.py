"""Full ranking: every item of the catalogue for a user, measured on a finished project."""
