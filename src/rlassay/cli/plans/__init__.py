"""What a study will take: jobs, tokens, hours, disk and detectable effects."""
