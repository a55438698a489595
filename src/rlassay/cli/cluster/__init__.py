"""Jobs on a cluster: what each asks for, and which ones an earlier Snakemake has left in the queue."""
