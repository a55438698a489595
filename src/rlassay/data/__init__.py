"""The data stage: from a study's source to `<split>.jsonl` and images on disk."""

from rlassay.data.prepare import SOURCES, load_rows, run_prepare_data

__all__ = ["SOURCES", "load_rows", "run_prepare_data"]
