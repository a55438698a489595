# pyright: basic
# pandas and pyarrow ship no types: in strict mode every call on a frame or table is unknown. Results of public
# functions are typed: records, floats, arrays.
"""Read the results of a study from disk, once; list missing files with the commands that make them."""

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import pandas as pd
import pyarrow as pa

from rlassay.config import StudyError
from rlassay.config.inputs import changed_inputs, data_inputs
from rlassay.config.load import Commands
from rlassay.config.policies import Policy, asked_policies, label_of, policies
from rlassay.config.settings import Settings
from rlassay.config.study import Study
from rlassay.files import read_json
from rlassay.layout import Layout
from rlassay.records import PromptRow, SplitFacts, read_rows
from rlassay.report.numbers import MissingFile
from rlassay.report.read.scores import PolicyScores, check_origin, read_curve, read_scores
from rlassay.report.read.training import read_metrics, read_rollouts, read_splits, read_train_manifest

SHARED_KINDS: dict[str, Literal["untrained", "sft"]] = {"model": "untrained", "sft": "sft"}
"""Stage -> kind of such a row."""
MAX_NAMED = 5
"""Missing files that an error names one by one."""
Value = TypeVar("Value")


class ResultsError(StudyError):
    """Result files are missing or damaged; the message names them and the commands that make them."""


@dataclass(frozen=True, kw_only=True)
class PolicyRow:
    """One table row: the policies that differ only in their seed."""

    key: str
    """`untrained` or `sft` (`sft/<id>` where that alone would be ambiguous), or the arm's name."""
    kind: Literal["untrained", "sft", "reference", "arm"]
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
    curves: dict[str, dict[int, PolicyScores]]
    """Run folder -> step in the middle of its training -> scores on `study.curve_set`; empty without such curves."""
    missing: tuple[MissingFile, ...]
    """Absent files; a policy that lacks one is left out."""

    def averaged(self, folder: str, name: str) -> tuple[PolicyScores, ...]:
        """The scores that a policy averages on a set.

        They are its own, and with `primary.over` those of earlier weights.
        """
        last = self.scores[folder, name]
        if self.study.primary.over is None or name != self.study.primary.set or folder not in self.curves:
            return (last,)
        steps = _averaged_steps(self.study, self.manifests[folder])
        return (*(self.curves[folder][step] for step in steps), last)

    @property
    def finished_arms(self) -> list[PolicyRow]:
        """The rows of arms with a finished run."""
        return [row for row in self.rows.values() if row.kind == "arm" and row.policies]

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
    # A look at sequential seeds waits for no curve, unless the curve decides.
    with_curves = before is None or study.primary.over is not None
    missing = list(_missing_files(study, layout, commands, every, with_curves=with_curves))
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
    split = study.curve_set if with_curves else None
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
        manifests={folder: reader.manifest(policy) for folder, policy in complete.items() if policy.is_trained},
        metrics={folder: reader.metrics(folder) for folder in runs},
        rollouts={folder: reader.rollouts(folder) for folder in runs},
        curves={} if split is None else {folder: reader.curve(folder, split, list(prompts[split])) for folder in runs},
        missing=tuple(missing),
    )


def _check_inputs(study: Study, manifest: Path, commands: Commands) -> None:
    """Raise ResultsError if local inputs have changed since the data were prepared."""
    recorded: dict[str, str] | None = json.loads(manifest.read_bytes()).get("inputs")
    if recorded is not None and (changed := changed_inputs(recorded, data_inputs(study.data))):
        problem = f"{manifest} was made from other inputs: {', '.join(changed)} changed since"
        raise ResultsError([f"{problem}; bring the results up to date with: {commands.report()}"])


def _missing_files(
    study: Study, layout: Layout, commands: Commands, every: dict[str, Policy], with_curves: bool
) -> Iterator[MissingFile]:
    for folder, policy in every.items():
        needed = [layout.train_manifest(folder, policy.stage)] if policy.is_trained else []
        needed += [path(folder, name) for name in study.evaluation.sets for path in (layout.completions, layout.scores)]
        if with_curves and study.curve_set is not None and policy.stage == "rl":
            needed.append(layout.curve(folder, study.curve_set))
        label = label_of(study, policy, every.values())
        needed_for = label if policy.seed is None else f"{label}, seed {policy.seed}"
        for path in needed:
            if not path.exists():
                relative = path.relative_to(layout.root).as_posix()
                yield MissingFile(path=relative, needed_for=needed_for, command=commands.make(path))
        if policy.stage == "rl":
            yield from _missing_points(study, layout, commands, folder, needed_for)


def _missing_points(
    study: Study, layout: Layout, commands: Commands, folder: str, needed_for: str
) -> Iterator[MissingFile]:
    """The points of a finished curve that `primary.over` averages and whose weights are gone."""
    name, manifest = study.primary.set, read_json(layout.train_manifest(folder))
    if study.primary.over is None or manifest is None or not layout.curve(folder, name).exists():
        return
    answered = (read_json(layout.curve_record(folder, name)) or {}).get("steps", [])
    for step in _averaged_steps(study, manifest):
        if step not in answered:
            path = layout.curve_completions(folder, name, step).relative_to(layout.root).as_posix()
            again = commands.remake(layout.train_manifest(folder))
            yield MissingFile(path=path, needed_for=needed_for, command=again)


def _averaged_steps(study: Study, manifest: dict[str, Any]) -> range:
    """The points of a curve that `primary.over` averages with the last weights; fewer for a run that ended early."""
    points = study.curve_points(int(manifest["steps"]))
    return points[max(0, len(points) + 1 - study.primary.num_checkpoints) :]


def _problems(missing: list[MissingFile], layout: Layout, commands: Commands) -> list[str]:
    """One sentence per missing file; of many files, the first few and the command that makes all."""
    named = [f"{layout.root / file.path} is missing; make it with: {file.command}" for file in missing[:MAX_NAMED]]
    more = len(missing) - MAX_NAMED
    return [*named, f"{more} more files are missing; make all with: {commands.report()}"] if more > 0 else named


def _rows(study: Study, every: dict[str, Policy], complete: dict[str, Policy]) -> dict[str, PolicyRow]:
    """Rows in table order; keys contain fingerprints where names alone are ambiguous."""
    rows: dict[str, PolicyRow] = {}
    for stage, kind in SHARED_KINDS.items():
        of_stage = {policy.fingerprint: policy for policy in every.values() if policy.stage == stage}
        unique = len(of_stage) == 1 and kind not in {*study.arms, *study.references}
        for fingerprint, policy in of_stage.items():
            found = tuple(p for p in complete.values() if p.stage == stage and p.fingerprint == fingerprint)
            key = kind if unique else f"{kind}/{fingerprint}"
            label = label_of(study, policy, every.values())
            rows[key] = PolicyRow(key=key, kind=kind, label=label, policies=found)
    for policy in every.values():
        if policy.reference is not None:
            here = (policy,) if policy.folder in complete else ()
            label = label_of(study, policy, every.values())
            rows[policy.reference] = PolicyRow(key=policy.reference, kind="reference", label=label, policies=here)
    for name, arm in study.arms.items():
        found = tuple(policy for policy in complete.values() if policy.arm == name)
        rows[name] = PolicyRow(key=name, kind="arm", label=arm.label, policies=found)
    return rows


# Reading one file.


@contextmanager
def reading(path: Path, command: str) -> Generator[None, None, None]:
    """Turn errors from reading `path` into a ResultsError.

    The error names the file and the command that makes it.
    """
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
    """Reader of a study's files; each error names the file and the command that makes it again."""

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
        path, completions = self._layout.scores(folder, name), self._layout.completions(folder, name)
        scores = self._read(path, path, lambda path: read_scores(path, prompt_ids))
        # The command makes the completions again, since they may be another policy's, too.
        self._read(path, completions, lambda path: check_origin(path, folder, completions))
        return scores

    def curve(self, folder: str, name: str, prompt_ids: list[str]) -> dict[int, PolicyScores]:
        path = self._layout.curve(folder, name)
        return self._read(path, path, lambda path: read_curve(path, prompt_ids))

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
