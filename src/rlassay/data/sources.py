"""The registry of sources; the key is a data section's `kind` and the function's name."""

from collections.abc import Callable
from typing import Any

from rlassay.data.digits import digits
from rlassay.data.images import Images
from rlassay.data.jsonl import jsonl
from rlassay.records import PromptRow

SOURCES: dict[str, Callable[[Any, Images], dict[str, list[PromptRow]]]] = {"digits": digits, "jsonl": jsonl}
"""`source(section, images) -> rows by split`: it reads its own data section and hands its images over."""
