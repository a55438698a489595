# pyright: basic
# Lives on pandas and pyarrow, which ship no types: in strict mode every call on a frame or table is unknown. The values
# that other modules get from here are typed: records, floats, arrays.
"""Reads the results of a study from disk, once; lists missing files with the commands that make them."""

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from jaxtyping import Float

from rlassay.config import StudyError
from rlassay.config.inputs import changed_inputs, data_inputs
from rlassay.config.load import Commands
from rlassay.config.policies import SHARED_LABELS, Policy, asked_policies, policies
from rlassay.config.settings import Settings
from rlassay.config.study import Study
from rlassay.layout import Layout, shards
from rlassay.records import PromptRow, SplitFacts, read_rows
from rlassay.report.numbers import MissingFile

SHARED_KINDS: dict[str, Literal["untrained", "sft"]] = {"model": "untrained", "sft": "sft"}
"""Stage -> kind of such a row."""
MAX_NAMED = 5
"""Missing files that an error names one by one."""
DISAGREEMENT = "grading_disagreement"
"""Share of completions that the strict and the lenient parser score differently."""
SCORE_COLUMNS = ["prompt_id", "mode", "sample", "metric", "value"]
MANIFEST_KEYS = frozenset(
    ("fingerprint", "steps", "max_steps", "sha256", "seconds", "generated_tokens", "resumes", "gpus", "versions")
)
"""Keys of every manifest of a training job."""
TOKEN_LISTS = ("weight", "entropy", "perception", "dominance")
"""Columns of a token shard with one value per token."""
DOCUMENT_COLUMNS = ("document_tokens", "document_attention")
"""Columns that token shards of earlier versions lack."""
TOKEN_COLUMNS = (
    *("step", "prompt_id", "sample", "tokens", *TOKEN_LISTS),
    *("vision_attention", "vision_grid", *DOCUMENT_COLUMNS, "advantage", "reward", "scale"),
)
Watched = dict[str, Any]
"""One row of a token shard: a completion recorded token by token."""
watched_steps = shards
"""Step -> its token shard, ascending; empty if the run recorded no tokens."""
Value = TypeVar("Value")


class ResultsError(StudyError):
    """Result files are missing or damaged; the message names them and the commands that make them."""


@dataclass(frozen=True, kw_only=True)
class PolicyRow:
    """One table row: the policies that differ only in their seed."""

    key: str
    """`untrained` or `sft` (`sft/<id>` where that alone would be ambiguous), or the arm's name."""
    kind: Literal["untrained", "sft", "arm"]
    """Kind of its policies."""
    label: str
    """Its name on the page."""
    policies: tuple[Policy, ...]
    """The policies with complete files, by seed; one without a seed serves all seeds."""

    @property
    def folders(self) -> dict[int | None, str]:
        """Seed -> policy folder."""
        return {policy.seed: policy.folder for policy in self.policies}

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of its complete policies; empty if all seeds share one policy."""
        return tuple(policy.seed for policy in self.policies if policy.seed is not None)


@dataclass(frozen=True, kw_only=True)
class PolicyScores:
    """Scores of one policy on one evaluation set, averaged over the samples of each prompt."""

    means: pd.DataFrame
    """One row per prompt, sorted by prompt_id; columns (mode, metric); NaN = no sample has a score."""
    counts: pd.DataFrame
    """Scored samples behind each mean, in the same shape."""
    binary: frozenset[str]
    """Metrics whose every value is 0 or 1."""

    def mean_by_prompt(self, mode: str, metric: str) -> Float[np.ndarray, " items"]:
        """Mean score per prompt; NaN throughout if the policy has no such scores."""
        return column_or_nan(self.means, (mode, metric))

    def samples_by_prompt(self, mode: str, metric: str) -> Float[np.ndarray, " items"]:
        """Scored samples per prompt."""
        return np.nan_to_num(column_or_nan(self.counts, (mode, metric)))

    @property
    def metrics(self) -> frozenset[str]:
        """All metrics."""
        return frozenset(str(metric) for _, metric in self.counts.columns)

    def has(self, metric: str) -> bool:
        """Whether any sample has a score of this metric."""
        counts = self.counts.loc[:, self.counts.columns.get_level_values("metric") == metric]
        return bool(counts.to_numpy().any())


@dataclass(frozen=True, kw_only=True)
class Results:
    """The files of a study, read."""

    study: Study
    """The study."""
    layout: Layout
    """Paths of its files."""
    commands: Commands
    """Commands that make them."""
    rows: dict[str, PolicyRow]
    """Table rows by key: untrained models, warm starts, then the arms in the study's order."""
    prompts: dict[str, dict[str, PromptRow]]
    """Evaluation set -> prompt_id -> prompt."""
    splits: dict[str, SplitFacts]
    """Split -> counts of the data stage."""
    scores: dict[tuple[str, str], PolicyScores]
    """(policy folder, evaluation set) -> scores."""
    manifests: dict[str, dict[str, Any]]
    """Folder of a trained policy -> manifest of its training job."""
    metrics: dict[str, pd.DataFrame]
    """Run folder -> logged metrics by step."""
    rollouts: dict[str, pd.DataFrame]
    """Run folder -> sums over the completions of each step."""
    missing: tuple[MissingFile, ...]
    """Absent files; a policy that lacks one is left out."""

    @cached_property
    def planned(self) -> dict[str, Policy]:
        """Every policy of the study by its folder, finished or not."""
        return policies(self.study)


def gather(
    study: Study, layout: Layout, settings: Settings, partial: bool = False, before: int | None = None
) -> Results:
    """Read all results of a study.

    Args:
        study: the study.
        layout: paths of its files.
        settings: for the commands that make a file.
        partial: leave out unfinished policies instead of raising.
        before: as in `asked_policies`.

    Raises:
        ResultsError: a file is missing (unless `partial`), damaged, or belongs to another version of the study.
    """
    commands = Commands(settings)
    every = asked_policies(study, layout, before)
    missing = list(_missing_files(study, layout, commands, every))
    if missing and not partial:
        raise ResultsError(_problems(missing, layout, commands))
    reader = _Reader(layout, commands)
    with reading(layout.data_manifest, commands.remake(layout.data_manifest)):
        _check_inputs(study, layout.data_manifest, commands)
    prompts = {name: reader.prompts(name) for name in study.evaluation.sets}
    complete = {
        folder: one for folder, one in every.items() if not any(f.path.startswith(f"{folder}/") for f in missing)
    }
    runs = [folder for folder, policy in complete.items() if policy.stage == "rl"]
    return Results(
        study=study,
        layout=layout,
        commands=commands,
        rows=_rows(study, every, complete),
        prompts=prompts,
        splits=reader.splits(),
        scores={
            (folder, name): reader.scores(folder, name, list(prompts[name])) for folder in complete for name in prompts
        },
        manifests={folder: reader.manifest(policy) for folder, policy in complete.items() if policy.stage != "model"},
        metrics={folder: reader.metrics(folder) for folder in runs},
        rollouts={folder: reader.rollouts(folder) for folder in runs},
        missing=tuple(missing),
    )


def _check_inputs(study: Study, manifest: Path, commands: Commands) -> None:
    """ResultsError if local inputs are no longer those from which the data were prepared."""
    recorded: dict[str, str] | None = json.loads(manifest.read_bytes()).get("inputs")
    if recorded is not None and (changed := changed_inputs(recorded, data_inputs(study.data))):
        problem = f"{manifest} was made from other inputs: {', '.join(changed)} changed since"
        raise ResultsError([f"{problem}; bring the results up to date with: {commands.report()}"])


def _missing_files(study: Study, layout: Layout, commands: Commands, every: dict[str, Policy]) -> Iterator[MissingFile]:
    for folder, policy in every.items():
        needed = [] if policy.stage == "model" else [layout.train_manifest(folder, policy.stage)]
        needed += [path(folder, name) for name in study.evaluation.sets for path in (layout.completions, layout.scores)]
        label = SHARED_LABELS[policy.stage] if policy.arm is None else study.arms[policy.arm].label
        needed_for = label if policy.seed is None else f"{label}, seed {policy.seed}"
        for path in needed:
            if not path.exists():
                relative = path.relative_to(layout.root).as_posix()
                yield MissingFile(path=relative, needed_for=needed_for, command=commands.make(path))


def _problems(missing: list[MissingFile], layout: Layout, commands: Commands) -> list[str]:
    """One sentence per missing file; of many files, the first few and the command that makes all."""
    named = [f"{layout.root / file.path} is missing; make it with: {file.command}" for file in missing[:MAX_NAMED]]
    more = len(missing) - MAX_NAMED
    return [*named, f"{more} more files are missing; make all with: {commands.report()}"] if more > 0 else named


def _rows(study: Study, every: dict[str, Policy], complete: dict[str, Policy]) -> dict[str, PolicyRow]:
    """Rows in table order; keys hold fingerprints where a stage has several, or an arm has the name of the stage."""
    rows: dict[str, PolicyRow] = {}
    for stage, kind in SHARED_KINDS.items():
        fingerprints = list(dict.fromkeys(policy.fingerprint for policy in every.values() if policy.stage == stage))
        unique = len(fingerprints) == 1 and kind not in study.arms
        for fingerprint in fingerprints:
            found = tuple(p for p in complete.values() if p.stage == stage and p.fingerprint == fingerprint)
            key = kind if unique else f"{kind}/{fingerprint}"
            label = SHARED_LABELS[stage] if len(fingerprints) == 1 else f"{SHARED_LABELS[stage]} {fingerprint}"
            rows[key] = PolicyRow(key=key, kind=kind, label=label, policies=found)
    for name, arm in study.arms.items():
        found = tuple(policy for policy in complete.values() if policy.arm == name)
        rows[name] = PolicyRow(key=name, kind="arm", label=arm.label, policies=found)
    return rows


# Reading one file.


@contextmanager
def reading(path: Path, command: str) -> Generator[None, None, None]:
    """Turn errors from reading `path` into a ResultsError that names the file and the command that makes it."""
    try:
        yield
    except ResultsError:
        raise
    except FileNotFoundError:
        raise ResultsError([f"{path} is missing; make it with: {command}"]) from None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResultsError([f"{path} is damaged ({reason}); make it again with: {command}"]) from None


class _Reader:
    """Reads files of a study; each error names the file and the command that makes it again."""

    def __init__(self, layout: Layout, commands: Commands) -> None:
        self._layout = layout
        self._commands = commands

    def splits(self) -> dict[str, SplitFacts]:
        path = self._layout.data_manifest
        return self._read(path, path, read_splits)

    def prompts(self, name: str) -> dict[str, PromptRow]:
        path = self._layout.split(name)
        return self._read(
            path, self._layout.data_manifest, lambda path: {row.prompt_id: row for row in read_rows(path)}
        )

    def scores(self, folder: str, name: str, prompt_ids: list[str]) -> PolicyScores:
        path = self._layout.scores(folder, name)
        return self._read(path, path, lambda path: read_scores(path, prompt_ids))

    def metrics(self, folder: str) -> pd.DataFrame:
        return self._read(self._layout.metrics(folder), self._layout.train_manifest(folder), read_metrics)

    def rollouts(self, folder: str) -> pd.DataFrame:
        return self._read(self._layout.rollouts(folder), self._layout.train_manifest(folder), read_rollouts)

    def manifest(self, policy: Policy) -> dict[str, Any]:
        path = self._layout.train_manifest(policy.folder, policy.stage)
        manifest = self._read(path, path, read_train_manifest)
        if manifest["fingerprint"] != policy.fingerprint:
            raise ResultsError(
                [
                    f"{path} belongs to another version of the study: its fingerprint is {manifest['fingerprint']}, "
                    f"but the study now has {policy.fingerprint}; update the results with: {self._commands.report()}"
                ]
            )
        return manifest

    def _read(self, path: Path, made_with: Path, read: Callable[[Path], Value]) -> Value:
        with reading(path, self._commands.remake(made_with)):
            return read(path)


def read_splits(path: Path) -> dict[str, SplitFacts]:
    """Split -> counts, from the manifest of the data stage."""
    splits: dict[str, Any] = json.loads(path.read_bytes())["splits"]
    return {name: SplitFacts.model_validate_json(json.dumps(facts)) for name, facts in splits.items()}


def read_scores(path: Path, prompt_ids: list[str]) -> PolicyScores:
    """Scores of one policy; ValueError unless they cover exactly the prompts `prompt_ids`."""
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
    return PolicyScores(means=means, counts=counts, binary=frozenset(binary))


def _prompts_as_rows(frame: pd.DataFrame) -> pd.DataFrame:
    wide = frame.unstack("mode")
    assert isinstance(wide, pd.DataFrame)
    return wide.swaplevel(axis=1).sort_index(axis=1).sort_index()


def read_train_manifest(path: Path) -> dict[str, Any]:
    """Manifest of a training job; ValueError if it lacks one of `MANIFEST_KEYS`."""
    manifest = json.loads(path.read_bytes())
    if absent := sorted(MANIFEST_KEYS - set(manifest)):
        raise ValueError(f"it lacks {', '.join(absent)}")
    return manifest


def read_metrics(path: Path) -> pd.DataFrame:
    """Logged metrics, one row per step, ascending; NaN where a step did not log one."""
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

    Columns: `completions` (their number), `tokens`, and per reward `raw.<reward>`, `weighted.<reward>` (sums over the
    scored completions), `scored.<reward>` (their number) and, where scoring failed, `failed.<reward>.<kind>` (number of
    failures). With trajectory scaling also `scale_spread` (standard deviation of the factors).
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
    scored = by_step[[f"raw.{reward}" for reward in rewards]].count().astype(float)
    scored.columns = [f"scored.{reward}" for reward in rewards]
    spread = by_step[scale].std(ddof=0).rename(columns={"scale": "scale_spread"})
    joined = sums.join(scored).join(_count_failures(frame, failed)).join(spread)
    return joined.assign(completions=by_step.size().astype(float)).sort_index()


def _count_failures(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The number of failures in each step, one column per reward and kind."""
    step = frame["step"]
    counts = {
        f"{column}.{kind}": (frame[column] == kind).groupby(step).sum().astype(float)
        for column in columns
        for kind in sorted(frame[column].dropna().unique())
    }
    return pd.DataFrame(counts, index=sorted(step.unique()))


def read_watched(path: Path, columns: Sequence[str] = TOKEN_COLUMNS) -> Iterator[Watched]:
    """Completions of a token shard; ValueError if a column is absent or lacks values for some tokens."""
    earlier = set(DOCUMENT_COLUMNS) - set(pq.read_schema(path).names)
    table = pq.read_table(path, columns=[name for name in columns if name not in earlier])
    if absent := sorted(set(columns) - set(table.column_names) - earlier):
        raise ValueError(f"it lacks {', '.join(absent)}")
    for row in (dict.fromkeys(columns) | found for found in table.to_pylist()):
        for name in set(TOKEN_LISTS) & set(columns):
            if row[name] is not None and len(row[name]) != len(row["tokens"]):
                raise ValueError(f"{name} has {len(row[name])} values for {len(row['tokens'])} tokens")
        yield row


def column_or_nan(frame: pd.DataFrame, name: str | tuple[str, str]) -> Float[np.ndarray, " rows"]:
    """A column as floats; NaN throughout if the frame has no such column."""
    return frame[name].to_numpy(dtype=float) if name in frame else np.full(len(frame), np.nan)
