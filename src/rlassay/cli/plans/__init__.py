"""The cost and power of a study before it runs: jobs, tokens, hours, disk and detectable effects."""
