"""Everything of one study that lies on disk, read once; with what is missing, and how to make it."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rlassay.config import StudyError
from rlassay.config.inputs import changed_inputs, data_inputs
from rlassay.config.policies import Policy, policies
from rlassay.config.settings import Settings
from rlassay.config.study import Study
from rlassay.layout import Layout, shards
from rlassay.records import PromptRow, SplitFacts, parse_row, read_rows
from rlassay.report.commands import Commands
from rlassay.report.numbers import Missing

# MERGED FROM report.reading: Read the files that the stages leave behind; what is damaged is named, with the
# command that makes it again.

SCORE_COLUMNS = ["prompt_id", "mode", "sample", "metric", "value"]
PROOF_KEYS = {
    "fingerprint",
    "steps",
    "max_steps",
    "sha256",
    "seconds",
    "generated_tokens",
    "resumes",
    "gpus",
    "versions",
}
DISAGREEMENT = "grading_disagreement"
"""Share of completions that the strict and the lenient extractor grade differently."""


class ResultsError(StudyError):
    """Files of the results are missing or damaged; says which, and how to make them again."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of one policy on one evaluation set, averaged over each prompt's samples."""

    means: pd.DataFrame
    """One row per prompt, sorted by prompt_id; columns (mode, metric); NaN = no sample could be judged."""
    counts: pd.DataFrame
    """Judged samples behind each mean, in the same shape."""
    binary: frozenset[str]
    """Metrics whose every value is 0 or 1."""


@contextmanager
def blaming(path: Path, command: str) -> Iterator[None]:
    """Turn whatever goes wrong while reading `path` into a ResultsError that names it and the way out."""
    try:
        yield
    except ResultsError:
        raise
    except FileNotFoundError:
        raise ResultsError([f"{path} is missing; make it with: {command}"]) from None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        about = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResultsError([f"{path} is damaged ({about}); make it again with: {command}"]) from None


def read_scores(path: Path, prompt_ids: list[str]) -> Scores:
    """The scores of one policy; ValueError unless they are about exactly the prompts `prompt_ids`."""
    long = pq.read_table(path, columns=SCORE_COLUMNS).to_pandas()
    wide = long.pivot(index=["mode", "prompt_id", "sample"], columns="metric", values="value").astype(float)
    if {"choice_accuracy", "choice_accuracy_lenient"} <= set(wide.columns):
        strict, lenient = wide["choice_accuracy"], wide["choice_accuracy_lenient"]
        wide[DISAGREEMENT] = (strict != lenient).astype(float).where(strict.notna() & lenient.notna())
    binary = {str(metric) for metric in wide.columns if wide[metric].dropna().isin([0.0, 1.0]).all()}
    by_prompt = wide.groupby(level=["mode", "prompt_id"])
    means, counts = (_prompts_as_rows(frame) for frame in (by_prompt.mean(), by_prompt.count()))
    if list(means.index) != sorted(prompt_ids):
        raise ValueError(f"it scores {len(means)} prompts that are not the {len(prompt_ids)} prompts of the data")
    return Scores(means=means, counts=counts, binary=frozenset(binary))


def _prompts_as_rows(frame: pd.DataFrame) -> pd.DataFrame:
    wide = frame.unstack("mode")
    assert isinstance(wide, pd.DataFrame)
    return wide.swaplevel(axis=1).sort_index(axis=1).sort_index()


def read_metrics(path: Path) -> pd.DataFrame:
    """The logged metrics, one row per step, ascending; NaN where a step did not log one."""
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().decode("utf-8").splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except ValueError:
            raise ValueError(f"line {number} is not JSON") from None
    if not lines:
        raise ValueError("it is empty")
    return pd.DataFrame(lines).set_index("step").astype(float).sort_index()


def read_rollouts(folder: Path) -> pd.DataFrame:
    """Sums over the completions of each step, one row per step, ascending.

    Columns: `completions` (how many), `tokens`, and per reward `raw.<reward>`, `weighted.<reward>` (sums over judged
    completions) and `judged.<reward>` (how many were judged). Where judging failed, `failed.<reward>.<kind>` (how
    many). With trajectory scaling, `scale_spread` (deviation of the factors).
    """
    files = [str(path) for path in shards(folder).values()]
    if not files:
        raise FileNotFoundError(folder)
    data = ds.dataset(files, format="parquet")
    rewards = [name.removeprefix("raw.") for name in data.schema.names if name.startswith("raw.")]
    parts = [f"{part}.{reward}" for reward in rewards for part in ("raw", "weighted")]
    scale = [name for name in ("scale",) if name in data.schema.names]
    failed = [name for name in data.schema.names if name.startswith("failed.")]
    frame = data.to_table(columns=["step", "token_count", *parts, *scale, *failed]).to_pandas()
    # Shards hold single precision, too coarse for sums.
    frame[[*parts, *scale]] = frame[[*parts, *scale]].astype(float)
    by_step = frame.groupby("step")
    sums = by_step[["token_count", *parts]].sum().rename(columns={"token_count": "tokens"}).astype(float)
    judged = by_step[[f"raw.{reward}" for reward in rewards]].count().astype(float)
    judged.columns = [f"judged.{reward}" for reward in rewards]
    spread = by_step[scale].std(ddof=0).rename(columns={"scale": "scale_spread"})
    joined = sums.join(judged).join(_failures(frame, failed)).join(spread)
    return joined.assign(completions=by_step.size().astype(float)).sort_index()


def _failures(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """For each column and each kind of failure in it, how often it happened in each step."""
    step = frame["step"]
    counts = {
        f"{column}.{kind}": (frame[column] == kind).groupby(step).sum().astype(float)
        for column in columns
        for kind in sorted(frame[column].dropna().unique())
    }
    return pd.DataFrame(counts, index=sorted(step.unique()))


def read_proof(path: Path) -> dict[str, Any]:
    """The sentinel of a training job; ValueError when it lacks something that every sentinel has."""
    proof = json.loads(path.read_bytes())
    if absent := sorted(PROOF_KEYS - set(proof)):
        raise ValueError(f"it lacks {', '.join(absent)}")
    return proof


def read_splits(path: Path) -> dict[str, SplitFacts]:
    """Split -> what the data stage's sentinel says about it."""
    splits: dict[str, Any] = json.loads(path.read_bytes())["splits"]
    return {name: SplitFacts.model_validate_json(json.dumps(facts)) for name, facts in splits.items()}


def sample_rows(path: Path, count: int) -> list[PromptRow]:
    """At most `count` rows of a split, evenly spaced over its file, without reading what lies between them."""
    size = path.stat().st_size
    rows: dict[str, PromptRow] = {}
    with path.open("rb") as lines:
        for part in range(count):
            lines.seek(size * part // count)
            if part:  # most likely in the middle of a row
                lines.readline()
            place = lines.tell()
            if line := lines.readline():
                row = parse_row(line, f"{path}, byte {place}")
                rows[row.prompt_id] = row
    return list(rows.values())


def column_or_nan(frame: pd.DataFrame, name: str) -> np.ndarray:
    """A column as floats; NaN throughout where the frame has no such column."""
    return frame[name].to_numpy(dtype=float) if name in frame else np.full(len(frame), np.nan)


# MERGED FROM report.gather: Everything of one study that lies on disk, read once; with what is missing, and how
# to make it.

Read = TypeVar("Read")
NAMED = 5
"""Missing files that an error names one by one."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One table row: the policies that differ in nothing but the seed."""

    key: str
    """`untrained` or `sft` (`sft/<id>` where that alone would be ambiguous), or the arm's name."""
    kind: Literal["untrained", "sft", "arm"]
    """What it is."""
    label: str
    """Its name on the page."""
    policies: tuple[Policy, ...]
    """Those whose files are complete, by seed; one without a seed serves all seeds."""

    @property
    def folders(self) -> dict[int | None, str]:
        """Seed -> policy folder."""
        return {policy.seed: policy.folder for policy in self.policies}

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of its complete policies; empty for one shared by all seeds."""
        return tuple(policy.seed for policy in self.policies if policy.seed is not None)


@dataclass(frozen=True, kw_only=True)
class Results:
    """The files of a study, read."""

    study: Study
    """What they belong to."""
    layout: Layout
    """Where they lie."""
    commands: Commands
    """How to make them."""
    rows: dict[str, Row]
    """Table rows by key: untrained models, warm starts, then the arms in the study's order."""
    prompts: dict[str, dict[str, PromptRow]]
    """Evaluation set -> prompt_id -> prompt."""
    splits: dict[str, SplitFacts]
    """Split -> what the data stage says about it."""
    scores: dict[tuple[str, str], Scores]
    """(policy folder, evaluation set) -> its scores."""
    proofs: dict[str, dict[str, Any]]
    """Folder of a trained policy -> its sentinel."""
    metrics: dict[str, pd.DataFrame]
    """Folder of a run -> metrics by step."""
    rollouts: dict[str, pd.DataFrame]
    """Folder of a run -> sums over the completions of each step."""
    missing: tuple[Missing, ...]
    """Files that are absent; a policy that lacks one is left out."""


def gather(study: Study, layout: Layout, settings: Settings, partial: bool = False) -> Results:
    """Read all results of a study.

    Args:
        study: the study.
        layout: where it lies.
        settings: for the commands that make a file again.
        partial: leave out policies that are not finished instead of refusing.

    Raises:
        ResultsError: a file is missing (unless `partial`), damaged, or was made for another version of the study.
    """
    commands = Commands(settings)
    every = policies(study)
    missing = list(_missing(study, layout, commands, every))
    if missing and not partial:
        raise ResultsError(_complaints(missing, layout, commands))
    with blaming(layout.data_manifest, commands.again(layout.data_manifest)):
        splits = read_splits(layout.data_manifest)
        _check_inputs(study, layout.data_manifest, commands)
    prompts = {name: _prompts(layout.split(name), layout, commands) for name in study.evaluation.sets}
    absent = tuple(one.path for one in missing)
    complete = {name: policy for name, policy in every.items() if not any(p.startswith(f"{name}/") for p in absent)}
    reader = _Reader(layout, commands)
    return Results(
        study=study,
        layout=layout,
        commands=commands,
        rows=_rows(study, every, complete),
        prompts=prompts,
        splits=splits,
        scores={
            (folder, name): reader.scores(folder, name, list(prompts[name]))
            for folder in complete
            for name in study.evaluation.sets
        },
        proofs={folder: reader.proof(policy) for folder, policy in complete.items() if policy.stage != "model"},
        metrics={folder: reader.metrics(folder) for folder, policy in complete.items() if policy.stage == "rl"},
        rollouts={folder: reader.rollouts(folder) for folder, policy in complete.items() if policy.stage == "rl"},
        missing=tuple(missing),
    )


def _check_inputs(study: Study, manifest: Path, commands: Commands) -> None:
    """ResultsError if local inputs are no longer those that the data were prepared from."""
    recorded: dict[str, str] | None = json.loads(manifest.read_bytes()).get("inputs")
    changed = [] if recorded is None else changed_inputs(recorded, data_inputs(study.data))
    if changed:
        raise ResultsError(
            [
                f"{manifest} was made from other inputs: {', '.join(changed)} changed since; bring the results up to "
                f"date with: {commands.report()}"
            ]
        )


class _Reader:
    """Reads one policy's files, blaming each for what is wrong with it."""

    def __init__(self, layout: Layout, commands: Commands) -> None:
        self._layout = layout
        self._commands = commands

    def scores(self, folder: str, name: str, prompt_ids: list[str]) -> Scores:
        path = self._layout.scores(folder, name)
        return self._read(path, path, lambda: read_scores(path, prompt_ids))

    def metrics(self, folder: str) -> pd.DataFrame:
        path = self._layout.metrics(folder)
        return self._read(path, self._layout.train_manifest(folder), lambda: read_metrics(path))

    def rollouts(self, folder: str) -> pd.DataFrame:
        path = self._layout.rollouts(folder)
        return self._read(path, self._layout.train_manifest(folder), lambda: read_rollouts(path))

    def proof(self, policy: Policy) -> dict[str, Any]:
        path = self._layout.train_manifest(policy.folder, policy.stage)
        proof = self._read(path, path, lambda: read_proof(path))
        if proof["fingerprint"] != policy.fingerprint:
            raise ResultsError(
                [
                    f"{path} belongs to another version of the study: its fingerprint is {proof['fingerprint']}, now "
                    f"{policy.fingerprint} is asked for; bring the results up to date with: {self._commands.report()}"
                ]
            )
        return proof

    def _read(self, path: Path, remake: Path, read: Callable[[], Read]) -> Read:
        with blaming(path, self._commands.again(remake)):
            return read()


def _missing(study: Study, layout: Layout, commands: Commands, every: dict[str, Policy]) -> Iterator[Missing]:
    for folder, policy in every.items():
        needed = [] if policy.stage == "model" else [layout.train_manifest(folder, policy.stage)]
        needed += [path(folder, name) for name in study.evaluation.sets for path in (layout.completions, layout.scores)]
        for path in needed:
            if not path.exists():
                where = path.relative_to(layout.root).as_posix()
                yield Missing(path=where, needed_for=_name(study, policy), command=commands.make(path))


def _complaints(missing: list[Missing], layout: Layout, commands: Commands) -> list[str]:
    """One sentence per missing file; of many, the first few and how to make them all."""
    named = [f"{layout.root / one.path} is missing; make it with: {one.command}" for one in missing[:NAMED]]
    more = len(missing) - NAMED
    return [*named, f"{more} more files are missing; make all with: {commands.report()}"] if more > 0 else named


def _name(study: Study, policy: Policy) -> str:
    name = study.arms[policy.arm].label if policy.arm is not None else KINDS[policy.stage]
    return name if policy.seed is None else f"{name}, seed {policy.seed}"


KINDS = {"model": "Untrained model", "sft": "SFT"}
"""Stage -> label of a row that is no arm."""
SHARED: dict[str, Literal["untrained", "sft"]] = {"model": "untrained", "sft": "sft"}
"""Stage -> kind of such a row."""


def _prompts(path: Path, layout: Layout, commands: Commands) -> dict[str, PromptRow]:
    with blaming(path, commands.again(layout.data_manifest)):
        return {row.prompt_id: row for row in read_rows(path)}


def _rows(study: Study, every: dict[str, Policy], complete: dict[str, Policy]) -> dict[str, Row]:
    """Rows in table order; ids tell several of one kind apart, or one from an arm of that name."""
    rows: dict[str, Row] = {}
    for stage, kind in SHARED.items():
        prints = list(dict.fromkeys(policy.fingerprint for policy in every.values() if policy.stage == stage))
        unique = len(prints) == 1 and kind not in study.arms
        for fingerprint in prints:
            found = tuple(p for p in complete.values() if p.stage == stage and p.fingerprint == fingerprint)
            key = kind if unique else f"{kind}/{fingerprint}"
            label = KINDS[stage] if len(prints) == 1 else f"{KINDS[stage]} {fingerprint}"
            rows[key] = Row(key=key, kind=kind, label=label, policies=found)
    for name, arm in study.arms.items():
        found = tuple(policy for policy in complete.values() if policy.arm == name)
        rows[name] = Row(key=name, kind="arm", label=arm.label, policies=found)
    return rows


# MERGED FROM report.credit_reading: Read the token shards that training leaves: the first groups of each
# generation batch, token by token.

COLUMNS = (
    *("step", "prompt_id", "sample", "tokens", "weight", "entropy", "perception", "dominance"),
    *("vision_attention", "vision_grid", "advantage", "reward", "scale"),
)
LISTS = ("weight", "entropy", "perception", "dominance")
"""Columns with one value per token."""

Watched = dict[str, Any]
"""One row of a shard: a watched completion."""


def watched_steps(folder: Path) -> dict[int, Path]:
    """Step -> its shard, ascending; empty where nothing was watched."""
    return shards(folder)


def read_watched(path: Path, columns: Sequence[str] = COLUMNS) -> Iterator[Watched]:
    """The completions of a shard; ValueError when it lacks a column or has not one number per token."""
    table = pq.read_table(path, columns=list(columns))
    if absent := sorted(set(columns) - set(table.column_names)):
        raise ValueError(f"it lacks {', '.join(absent)}")
    for row in table.to_pylist():
        for name in set(LISTS) & set(columns):
            if row[name] is not None and len(row[name]) != len(row["tokens"]):
                raise ValueError(f"{name} has {len(row[name])} values for {len(row['tokens'])} tokens")
        yield row
