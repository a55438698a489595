"""Reads and compares answers: equality, quantities and the replies of judges."""
