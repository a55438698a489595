"""Jobs on a cluster: the resources that they request, and jobs that an earlier Snakemake left in the queue."""
