"""The data section: what each split holds, what was refused, and a few of its rows."""

from pathlib import Path

from rlassay.records import PromptRow
from rlassay.report.content import Content
from rlassay.report.gather import Results
from rlassay.report.provenance import DataSplit, SampleRow
from rlassay.report.reading import blaming, sample_rows
from rlassay.report.typeset import shortened

SAMPLES = 3
"""Rows shown of each split."""
LONGEST = 600
"""Characters of a text that are shown."""


def build_splits(results: Results) -> list[DataSplit]:
    """The data splits, by name."""
    return [_split(results, name) for name in sorted(results.splits)]


def _split(results: Results, name: str) -> DataSplit:
    facts, path = results.splits[name], results.layout.split(name)
    with blaming(path, results.commands.again(results.layout.data_sentinel)):
        samples = sample_rows(path, SAMPLES)
    counts = [
        sum(count for reason, count in facts.refused.items() if reason.startswith(kind))
        for kind in ("duplicate:", "leak:")
    ]
    return DataSplit(
        **dict(facts),
        split=name,
        duplicates=counts[0],
        leaks=counts[1],
        samples=tuple(_sample(row) for row in samples),
    )


def _sample(row: PromptRow) -> SampleRow:
    return SampleRow(
        prompt_id=row.prompt_id,
        question=shortened(row.question, LONGEST),
        choices=tuple(shortened(choice, LONGEST) for choice in row.choices),
        answer=shortened(row.answer, LONGEST),
        demonstration=None if row.demonstration is None else shortened(row.demonstration, LONGEST),
        images=tuple(f"../data/{item.path}" for item in row.media if item.kind == "image"),
        clips=tuple(Path(item.path).name for item in row.media if item.kind == "video"),
    )


def sample_images(content: Content) -> list[str]:
    """Paths of all images of the sample rows, relative to the report folder."""
    return sorted({path for split in content.data for row in split.samples for path in row.images})
