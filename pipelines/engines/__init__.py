"""Engines: each places the same stages in its own way; they do not know each other."""
