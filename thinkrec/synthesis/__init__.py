"""Everything that asks a teacher, or stands in for one: keywords, the client, the reflect loop, verdicts."""
