"""The data stage: source -> what becomes of each record -> `<split>.jsonl` -> `data.json`."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rlassay.config import Study, StudyError
from rlassay.config.data import DataConfig
from rlassay.config.fingerprints import code_digest, data_id
from rlassay.data.builtin import digits
from rlassay.data.docstrings import docstrings
from rlassay.data.drafts import Source
from rlassay.data.images import Images
from rlassay.data.intake import Intake, Tally, in_order, length_check, take_in
from rlassay.data.journal import Journal, Kept
from rlassay.data.media_records import conversations, jsonl, jsonl_prompts
from rlassay.data.tables import aokvqa, gsm8k, summarization, table
from rlassay.files import sha256, write_json
from rlassay.layout import Layout
from rlassay.records import TRAINING_SPLITS, PromptRow, SplitFacts, parse_row

# MERGED FROM data.sources: The registry of sources; the key is a data section's `kind` and the function's name.

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


# MERGED FROM data.prepare: The data stage: source -> what becomes of each record -> `<split>.jsonl` ->
# `data.json`.


def run_prepare_data(study: Study, layout: Layout) -> dict[str, SplitFacts]:
    """Write the rows and images of every split, and `data.json` last; the same study gives the same bytes.

    A killed attempt is gone on with: what it had made of the source's records is not made again.

    Returns: per split, how many rows were kept, how many were refused for which reason, and what the rows are like.

    Errors: StudyError listing what is wrong with the source's rows, naming a split of which no row is left, or saying
        that another process is at work.
    """
    with _unfinished(layout):
        # 1. What vouches for the old rows goes first.
        layout.data_manifest.unlink(missing_ok=True)
        # 2. Every record, one split after the other; no file is replaced before all splits are sound.
        source, images = SOURCES[study.data.kind](study.data), Images(layout.data)
        _check_place(source, layout)
        intake = Intake(source=source, images=images, too_long=length_check(study.data.max_prompt_length))
        states = _states(study, source)
        made = {split: _prepare_split(split, study, layout, intake, states[split]) for split in states}
        # 3. The rows take their places, and nothing stays of a study that has been edited since.
        for split in made:
            layout.split_part(split).replace(layout.split(split))
        images.prune()
        for file in layout.splits():
            if file.stem not in made:
                file.unlink()
        # 4. What vouches for them.
        facts = {split: made[split] for split in source.drafts}
        digests = {layout.split(split).name: sha256(layout.split(split)) for split in facts}
        splits = {split: one.model_dump(mode="json") for split, one in facts.items()}
        content = {"id": data_id(study), "splits": splits, "sha256": digests | {"images": images.digest()}}
        write_json(layout.data_manifest, content)
    return facts


def load_rows(section: DataConfig, root: Path | str, split: str | None = None) -> Iterator[PromptRow]:
    """The usable rows of a source one by one, read as they are asked for; refused ones are left out.

    Args:
        section: a `data` section.
        root: the folder that receives the images, to which `Media.path` is relative.
        split: which split; None gives all of them, the evaluation splits first.

    Errors: StudyError listing what is wrong with the section or with the source's files.
    """
    source = SOURCES[section.kind](section)
    if split is not None and split not in source.drafts:
        raise StudyError([f"data.splits: no split {split!r}; got {', '.join(source.drafts) or 'none'}"])
    intake = Intake(source=source, images=Images(Path(root)), too_long=length_check(section.max_prompt_length))
    for name in in_order(source.drafts):
        # An evaluation split is read on the way to a training split, which must share nothing with it.
        if split in (None, name) or name not in TRAINING_SPLITS:
            for outcome in take_in(name, section.splits[name], intake):
                if isinstance(outcome, Kept) and split in (None, name):
                    yield parse_row(outcome.row.encode("utf-8"), name)
        if split == name:
            return


@contextmanager
def _unfinished(layout: Layout) -> Iterator[None]:
    """Hold the lock of the unfinished work, which a kill leaves behind for the next attempt.

    It is removed at the end, and after a StudyError too: whoever mends the cause changes what is read. StudyError if
    another process holds the lock; the kernel frees it however that process ends.
    """
    layout.data_parts.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(layout.data_parts / "lock", timeout=0):
            try:
                yield
            except StudyError:
                shutil.rmtree(layout.data_parts)
                raise
            shutil.rmtree(layout.data_parts)
    except Timeout:
        raise StudyError([f"{layout.data}: another process prepares this data; wait for it, or stop it"]) from None


def _check_place(source: Source, layout: Layout) -> None:
    for file in (file for files in source.files.values() for file in files):
        if file.resolve().is_relative_to(layout.data.resolve()):
            raise StudyError([f"data: {file} lies in the study's own data folder; move your files elsewhere"])


def _prepare_split(split: str, study: Study, layout: Layout, intake: Intake, state: str) -> SplitFacts:
    """Write a split's rows beside those that they will replace; a journal of another state is not gone on with."""
    tally = Tally()
    with Journal(layout.split_journal(split), state) as journal:
        done = journal.outcomes(lambda outcome: intake.recall(outcome, split))
        for outcome in take_in(split, study.data.splits[split], intake, done):
            journal.append(outcome)
        with layout.split_part(split).open("w", encoding="utf-8", newline="\n") as rows:
            for outcome in journal.outcomes():
                tally.add(outcome)
                if isinstance(outcome, Kept):
                    rows.write(outcome.row)
    if not tally.rows:
        raise StudyError([f"data: no row of the split {split!r} is left; refused were {tally.refusals()}"])
    return tally.facts()


def _states(study: Study, source: Source) -> dict[str, str]:
    """Split -> all that decides what becomes of its records: the study, the code, and the files read up to then."""
    state = [data_id(study), code_digest("rlassay.data.prepare")]
    states: dict[str, str] = {}
    for split in in_order(source.drafts):
        about = [(file, file.stat()) for file in source.files.get(split, ())]
        state += [f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in about]
        states[split] = json.dumps(state)
    return states
