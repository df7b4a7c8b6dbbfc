"""The two servers that people write themselves, kept as short as they are written."""
