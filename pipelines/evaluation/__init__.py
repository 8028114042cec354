"""Measuring what a run wrote, and showing it to a person."""
