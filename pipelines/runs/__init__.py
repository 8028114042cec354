"""A run and its exactly-once protocol: the plan, the claim of a place, commits, rounds, the manifest, the check."""
