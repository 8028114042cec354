"""Stages: units of work that an engine places; none of them knows an engine."""
