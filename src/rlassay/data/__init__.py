"""From a study's source to `<split>.jsonl` and images on disk."""

from rlassay.data.prepare import load_rows, run_prepare_data
from rlassay.data.sources import SOURCES

__all__ = ["SOURCES", "load_rows", "run_prepare_data"]
