"""Figures of the report that are not an interval per row."""
