"""Jobs on a cluster: their resources, and those that an earlier Snakemake left queued."""
