"""The registry of sources; the key is a data section's `kind` and the function's name."""

from collections.abc import Callable
from typing import Any

from rlassay.data.digits import digits
from rlassay.data.docstrings import docstrings
from rlassay.data.drafts import Source
from rlassay.data.jsonl import jsonl
from rlassay.data.media_records import conversations, jsonl_prompts
from rlassay.data.schemas import aokvqa, gsm8k, summarization
from rlassay.data.tables import table

SOURCES: dict[str, Callable[[Any], Source]] = {
    "digits": digits,
    "jsonl": jsonl,
    "table": table,
    "aokvqa": aokvqa,
    "gsm8k": gsm8k,
    "summarization": summarization,
    "jsonl_prompts": jsonl_prompts,
    "conversations": conversations,
    "docstrings": docstrings,
}
"""`source(section) -> Source`: it reads its own data section, and no record before it is asked for."""
