"""Findings from a study's numbers: equivalence, excluded effects, flips, aggregates, attribution, alarms."""
