"""The registry of sources; the key is a data section's `kind` and the function's name."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rlassay.data.digits import digits
from rlassay.data.docstrings import docstrings
from rlassay.data.drafts import RowRefusedError
from rlassay.data.images import Images
from rlassay.data.jsonl import jsonl
from rlassay.data.media_records import conversations, jsonl_prompts
from rlassay.data.schemas import aokvqa, gsm8k, summarization
from rlassay.data.tables import table
from rlassay.records import PromptRow

SOURCES: dict[str, Callable[[Any, Images], Mapping[str, Iterable[PromptRow | RowRefusedError]]]] = {
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
"""`source(section, images) -> rows by split`: it reads its own data section and hands its images over.

Among the rows stand the reasons for which others were refused. The rows of a split may be read as they are asked for,
the splits in the order of the mapping.
"""
