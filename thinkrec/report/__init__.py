"""The report: one HTML page of a finished project, with a browser of its users."""
