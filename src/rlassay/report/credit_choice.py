"""Which prompts the credit viewer shows: the same ones for every arm, chosen by fixed rules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from rlassay.report.credit_reading import Watched, read_watched, watched_steps
from rlassay.report.gather import Results
from rlassay.report.reading import blaming

Stage = Literal["first", "middle", "last"]
PRIORITY: tuple[Stage, ...] = ("first", "last", "middle")
"""Stages in the order in which they are kept when not all fit."""
Group = list[Watched]
"""The watched completions of one prompt."""


class Chosen(NamedTuple):
    """One scene."""

    step: int
    """The optimiser step."""
    rank: int
    """0 = the first prompt that was watched at that step."""
    stage: Stage
    """Where in training the step lies."""
    prompt_id: str
    """The prompt."""


class AtStep(NamedTuple):
    """What every arm watched at one step."""

    step: int
    """The optimiser step."""
    arms: dict[str, dict[str, Group]]
    """Arm -> prompt_id -> group, in the order watched."""


def watched_runs(results: Results) -> tuple[int, dict[str, str]]:
    """The seed whose runs show most arms (the first such one), and its arms' folders; none if nothing was watched."""
    by_seed: dict[int, dict[str, str]] = {seed: {} for seed in results.study.seeds}
    for name in results.study.arms:
        for seed, folder in results.rows[name].folders.items():
            if seed is not None and watched_steps(results.layout.tokens(folder)):
                by_seed[seed][name] = folder
    seed = max(by_seed, key=lambda one: len(by_seed[one]))
    return seed, by_seed[seed]


def stages(steps: Sequence[int]) -> dict[Stage, int]:
    """The first, the middle and the last of ascending steps, in the order of `PRIORITY`; fewer of fewer steps."""
    places = {"first": 0, "last": len(steps) - 1, "middle": len(steps) // 2}
    found: dict[Stage, int] = {}
    for stage in PRIORITY:
        if steps and steps[places[stage]] not in found.values():
            found[stage] = steps[places[stage]]
    return found


def groups_by_stage(results: Results, runs: dict[str, str]) -> dict[Stage, AtStep]:
    """What was watched at the first, the middle and the last of the steps that all arms have, by `PRIORITY`."""
    shards = {arm: watched_steps(results.layout.tokens(folder)) for arm, folder in runs.items()}
    common = sorted(set.intersection(*(set(steps) for steps in shards.values())))
    return {
        stage: AtStep(step, {arm: _groups(results, folder, shards[arm][step]) for arm, folder in runs.items()})
        for stage, step in stages(common).items()
    }


def candidates(found: dict[Stage, AtStep]) -> list[Chosen]:
    """All scenes that could be shown, best first: the first prompt of each stage, then the second ones, and so on."""
    every: list[tuple[int, int, Chosen]] = []
    for place, (stage, (step, arms)) in enumerate(found.items()):
        first, *others = arms.values()
        shared = [prompt_id for prompt_id in first if all(prompt_id in groups for groups in others)]
        every += [(rank, place, Chosen(step, rank, stage, prompt_id)) for rank, prompt_id in enumerate(shared)]
    return [chosen for *_, chosen in sorted(every)]


def _groups(results: Results, folder: str, path: Path) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    with blaming(path, results.commands.again(results.layout.train_sentinel(folder))):
        for row in read_watched(path):
            groups.setdefault(row["prompt_id"], []).append(row)
    return groups
