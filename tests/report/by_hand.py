"""Results made from arrays, for tests that compute the expected numbers by hand."""

from pathlib import Path

import numpy as np
import pandas as pd

from rlassay.config.load import Commands
from rlassay.config.policies import policies
from rlassay.config.settings import Settings
from rlassay.layout import Layout
from rlassay.records import PromptRow
from rlassay.report.gather import PolicyRow, Results
from rlassay.report.read.scores import PolicyScores
from tests.report.synthetic import Size, synthetic_study


def hand_results(accuracy: dict[str, np.ndarray], samples: int = 4) -> Results:
    """Results in which row `r` has the sampled primary metric `accuracy[r]`, shape (num_seeds, num_items).

    Rows: `sft` (shared by the seeds) and any arms; seeds count from 1. An arm without rows has no finished run.
    """
    arms = tuple(name for name in accuracy if name != "sft")
    num_items = next(iter(accuracy.values())).shape[1]
    seeds = tuple(range(1, 1 + max(len(accuracy[arm]) for arm in arms)))
    study = synthetic_study(Size(arms=arms, seeds=seeds, items=num_items, samples=samples))
    prompt_ids = [f"p{number:03d}" for number in range(num_items)]
    rows: dict[str, PolicyRow] = {}
    scores: dict[tuple[str, str], PolicyScores] = {}
    planned = policies(study).values()
    for name, values in accuracy.items():
        kind = "sft" if name == "sft" else "arm"
        every = [one for one in planned if one.arm == name or (kind == one.stage == "sft")]
        found = tuple(every[: len(values)])
        label = "SFT" if kind == "sft" else study.arms[name].label
        rows[name] = PolicyRow(key=name, kind=kind, label=label, policies=found)
        for policy, line in zip(found, values, strict=True):
            scores[policy.folder, "test"] = _scores(prompt_ids, line, samples)
    prompts = {one: PromptRow(prompt_id=one, question=one, answer="A", choices=("1", "2")) for one in prompt_ids}
    return Results(
        study=study,
        layout=Layout(root=Path("results/synthetic")),
        commands=Commands(Settings(study="synthetic")),
        rows=rows,
        prompts={"test": prompts},
        splits={},
        scores=scores,
        manifests={},
        metrics={},
        rollouts={},
        curves={},
        missing=(),
    )


def _scores(prompt_ids: list[str], values: np.ndarray, samples: int) -> PolicyScores:
    columns = pd.MultiIndex.from_tuples([("sampled", "choice_accuracy")], names=["mode", "metric"])
    means = pd.DataFrame(values[:, None], index=pd.Index(prompt_ids), columns=columns)
    counts = means.notna().astype(int) * samples
    return PolicyScores(means=means, counts=counts, binary=frozenset({"choice_accuracy"}))
