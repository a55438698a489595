"""Everything of one study that lies on disk, read once; with what is missing, and how to make it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import pandas as pd

from rlassay.config.policies import Policy, policies
from rlassay.config.settings import Settings
from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.records import PromptRow, SplitFacts, read_rows
from rlassay.report.commands import Commands
from rlassay.report.provenance import Missing
from rlassay.report.reading import (
    ResultsError,
    Scores,
    blaming,
    read_metrics,
    read_proof,
    read_rollouts,
    read_scores,
    read_splits,
)

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
    with blaming(layout.data_sentinel, commands.again(layout.data_sentinel)):
        splits = read_splits(layout.data_sentinel)
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
        return self._read(path, self._layout.train_sentinel(folder), lambda: read_metrics(path))

    def rollouts(self, folder: str) -> pd.DataFrame:
        path = self._layout.rollouts(folder)
        return self._read(path, self._layout.train_sentinel(folder), lambda: read_rollouts(path))

    def proof(self, policy: Policy) -> dict[str, Any]:
        path = self._layout.train_sentinel(policy.folder)
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
        needed = [] if policy.stage == "model" else [layout.train_sentinel(folder)]
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
    with blaming(path, commands.again(layout.data_sentinel)):
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
