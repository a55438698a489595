"""Figures of the report with lines or marks per arm."""
