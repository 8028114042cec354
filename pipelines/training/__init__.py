"""Training on more than one process."""
