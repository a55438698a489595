"""Readers of single result files."""
