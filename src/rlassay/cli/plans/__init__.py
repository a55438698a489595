"""Cost and power of a study before it runs: jobs, tokens, hours, disk, detectable effects."""
