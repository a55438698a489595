"""The data stage: source -> outcomes of its records -> `<split>.jsonl` and images -> `data.json`."""

import json
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout

from rlassay.config import Study, StudyError
from rlassay.config.data import DataConfig, Hub, TableSection
from rlassay.config.fingerprints import code_digest, data_id
from rlassay.config.inputs import data_inputs, hub_commit
from rlassay.config.model import HubModel
from rlassay.data.builtin import digits
from rlassay.data.docstrings import docstrings, headlines
from rlassay.data.images import ImageStore
from rlassay.data.ingest import Ingestor, length_check, reading_order
from rlassay.data.json_records import conversations, jsonl, jsonl_prompts
from rlassay.data.moving_digits import moving_digits
from rlassay.data.outcomes import Accepted, Journal, SplitStats
from rlassay.data.raw_examples import Source
from rlassay.data.tables import aokvqa, gsm8k, summarization, table
from rlassay.files import sha256, write_json
from rlassay.layout import Layout
from rlassay.locks import file_lock, patience
from rlassay.records import TRAINING_SPLITS, PromptRow, SplitFacts, parse_row

SOURCES: dict[str, Callable[[Any], Source]] = {
    "digits": digits,
    "jsonl": jsonl,
    "table": table,
    "aokvqa": aokvqa,
    "gsm8k": gsm8k,
    "summarization": summarization,
    "jsonl_prompts": jsonl_prompts,
    "conversations": conversations,
    "moving_digits": moving_digits,
    "docstrings": docstrings,
    "headlines": headlines,
}
"""`kind` of a data section -> `source(section)` of the same name. It reads records only when they are requested."""


def run_prepare_data(study: Study, layout: Layout) -> dict[str, SplitFacts]:
    """Write the rows and images of every split, then `data.json`; the same study gives the same bytes.

    A killed attempt is resumed: its journals hold the outcomes of the records that it had ingested.

    Returns: per split, the number of rows, the rejected records by reason, and statistics of the rows.

    Errors: StudyError with the invalid rows of the source, with a split that has no rows left or more rejected
        records than `data.max_rejected`, or if another process is preparing this data.
    """
    with _unfinished(layout):
        # 1. Without its manifest, the old data counts as missing from here on.
        layout.data_manifest.unlink(missing_ok=True)
        # 2. Ingest one split after the other; no file is replaced before all splits are complete.
        section, commit = _pinned(study.data)
        inputs = data_inputs(study.data)
        source, images = SOURCES[section.kind](section), ImageStore(layout.data)
        _check_location(source, layout)
        ingestor = _ingestor(study.data, source, images)
        states = _states(study, source)
        facts = {split: _prepare_split(split, study, layout, ingestor, states[split]) for split in states}
        if problems := list(kind_problems({split: one.media for split, one in facts.items()}, study)):
            raise StudyError(problems)
        # 3. Replace the old rows, and delete everything that belongs to an earlier version of the study.
        for split in facts:
            layout.split_part(split).replace(layout.split(split))
        images.prune()
        for file in layout.splits():
            if file.stem not in facts:
                file.unlink()
        # 4. The manifest.
        facts = {split: _with_match_ids(facts[split], layout) for split in source.examples}
        digests = {layout.split(split).name: sha256(layout.split(split)) for split in facts}
        splits = {split: one.model_dump(mode="json") for split, one in facts.items()}
        content = {"id": data_id(study), "splits": splits, "sha256": digests | {"images": images.digest()}}
        write_json(layout.data_manifest, content | {"inputs": inputs, "hub_commit": commit})
    return facts


def load_rows(section: DataConfig, root: Path | str, split: str | None = None) -> Iterator[PromptRow]:
    """The usable rows of a source, read lazily; rejected records are skipped.

    Args:
        section: a `data` section.
        root: the folder that receives the images, and to which `Media.path` is relative.
        split: which split; None gives all of them, evaluation splits first.

    Errors: StudyError with the problems of the section or of the source's files.
    """
    source = SOURCES[section.kind](section)
    if split is not None and split not in source.examples:
        raise StudyError([f"data.splits: no split {split!r}; got {', '.join(source.examples) or 'none'}"])
    ingestor = _ingestor(section, source, ImageStore(Path(root)))
    for name in reading_order(source.examples):
        # A training split is compared with the evaluation splits, so that these are read too.
        if split in (None, name) or name not in TRAINING_SPLITS:
            for outcome in ingestor.ingest_split(name, section.splits[name]):
                if isinstance(outcome, Accepted) and split in (None, name):
                    yield parse_row(outcome.row.encode("utf-8"), name)
        if split == name:
            return


def _pinned(section: DataConfig) -> tuple[DataConfig, str | None]:
    """The section with its hub dataset's commit as revision, and the commit.

    All splits then come from one commit.
    """
    if not isinstance(section, TableSection) or not isinstance(section.origin, Hub):
        return section, None
    commit = hub_commit(section.origin)
    if commit is None:
        return section, None
    return section.model_copy(update={"origin": section.origin.model_copy(update={"revision": commit})}), commit


@contextmanager
def _unfinished(layout: Layout) -> Generator[None, None, None]:
    """Lock the folder of unfinished work, which a killed attempt leaves for the next one.

    The folder is deleted at the end, and after a StudyError too, since fixing its cause changes the input.

    Errors: StudyError if another process holds the lock.
    """
    layout.data_parts.mkdir(parents=True, exist_ok=True)
    lock = layout.data_parts / "lock"
    try:
        with file_lock(lock, patience(lock, 0.0)):
            try:
                yield
            except StudyError:
                shutil.rmtree(layout.data_parts)
                raise
            shutil.rmtree(layout.data_parts)
    except Timeout:
        raise StudyError([f"{layout.data}: another process prepares this data; wait for it, or stop it"]) from None


def _ingestor(section: DataConfig, source: Source, images: ImageStore) -> Ingestor:
    return Ingestor(
        source=source,
        images=images,
        too_long=length_check(section.max_prompt_length),
        duplicates=section.duplicates,
        leaks=section.leaks,
    )


def _with_match_ids(facts: SplitFacts, layout: Layout) -> SplitFacts:
    """The facts with the key of each row that a duplicate or leak repeats.

    The keys are read from the written splits.
    """
    wanted: dict[str, set[int]] = {}
    for pair in facts.pairs:
        wanted.setdefault(pair.match_split, set()).add(pair.match_row)
    keys: dict[tuple[str, int], str] = {}
    for split, numbers in wanted.items():
        with layout.split(split).open("rb") as lines:
            for number, line in enumerate(lines):
                if number in numbers:
                    keys[split, number] = parse_row(line, f"{layout.split(split)}:{number + 1}").prompt_id
    pairs = (pair.model_copy(update={"match_id": keys[pair.match_split, pair.match_row]}) for pair in facts.pairs)
    return facts.model_copy(update={"pairs": tuple(pairs)})


def _check_location(source: Source, layout: Layout) -> None:
    """Raise StudyError if an input file is in the study's data folder.

    It would be overwritten there.
    """
    for file in (file for files in source.files.values() for file in files):
        if file.resolve().is_relative_to(layout.data.resolve()):
            raise StudyError([f"data: {file} is in the study's own data folder; move your files elsewhere"])


def _prepare_split(split: str, study: Study, layout: Layout, ingestor: Ingestor, state: str) -> SplitFacts:
    """Write a split's rows to a temporary file, resuming a journal of the same state."""
    stats = SplitStats()
    with Journal(layout.split_journal(split), state) as journal:
        done = journal.outcomes(lambda outcome: ingestor.restore(outcome, split))
        for outcome in ingestor.ingest_split(split, study.data.splits[split], done):
            journal.append(outcome)
        with layout.split_part(split).open("w", encoding="utf-8", newline="\n") as rows:
            for outcome in journal.outcomes():
                stats.add(outcome)
                if isinstance(outcome, Accepted):
                    rows.write(outcome.row)
    if not stats.rows:
        raise StudyError([f"data: no row of the split {split!r} is left; rejected: {stats.rejections()}"])
    facts = stats.facts()
    if not ingestor.source.generated and stats.rejected_share() > study.data.max_rejected:
        raise StudyError(
            [
                f"data: {facts.records - facts.rows} of {facts.records} records of the split {split!r} were rejected, "
                f"a larger share than data.max_rejected = {study.data.max_rejected:g}; fix the source, or raise it. "
                f"Rejected: {stats.rejections()}"
            ]
        )
    return facts


def kind_problems(media: Mapping[str, Mapping[str, int]], study: Study) -> Iterator[str]:
    """A sentence for each training split of rows with and without media.

    TRL takes one kind per batch. Models that all take clips by their video input may have both, since `VideoTrainer`
    gives each row its own media.

    Args:
        media: split -> number of images and clips -> number of rows, as `SplitFacts.media`.
        study: its models say how clips are shown.
    """
    models = [arm.recipe.model for arm in study.arms.values()]
    if all(isinstance(model, HubModel) and model.clips.show == "video" for model in models):
        return
    for split in TRAINING_SPLITS:
        without, rows = media.get(split, {}).get("0", 0), sum(media.get(split, {}).values())
        if 0 < without < rows:
            yield (
                f"data: {without} of {rows} rows read of the split {split!r} show neither image nor clip; TRL cannot "
                "train on both kinds in one batch: keep one kind (images and clips may be mixed), or set "
                "model.clips.show to video, with a model that takes videos"
            )


def _states(study: Study, source: Source) -> dict[str, str]:
    """Split -> the state behind its outcomes: study, code, and files read so far."""
    state = [data_id(study), code_digest("rlassay.data.prepare")]
    states: dict[str, str] = {}
    for split in reading_order(source.examples):
        about = [(file, file.stat()) for file in source.files.get(split, ())]
        state += [f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in about]
        states[split] = json.dumps(state)
    return states
