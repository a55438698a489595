"""What a study's numbers say: equivalence, what is excluded, flips, aggregates, attribution, alarms."""
