"""One thin module per rule, and the `rlassay` command. `--help` loads no torch."""
