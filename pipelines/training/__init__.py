"""Training data, and training on more than one process."""
