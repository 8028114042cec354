"""Arrow schemas of everything the pipelines write; this package knows pyarrow only."""
