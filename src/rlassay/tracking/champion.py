"""Which trained policy of a finished study is its champion: the best arm by the report's verdicts.

An arm takes the title only if its verdict is `better`, after Holm's correction; of several, the one with the largest
effect. Without such an arm the baseline keeps it, since none is known to be better. An arm whose comparison is not
resolved never takes it, however high its mean.

Of the arm's seeds, the one whose score is nearest to the arm's mean is taken, so that the weights are as good as the
report says: the best seed would owe its score partly to luck on these prompts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ALIAS = "champion"
"""Alias of the champion's version in MLflow's model registry."""


@dataclass(frozen=True, kw_only=True)
class Champion:
    """A run of the study, and why it was chosen."""

    arm: str
    """The arm."""
    seed: int
    """The seed."""
    why: str
    """The reason, in two sentences."""


def choose_champion(content: Mapping[str, Any]) -> Champion | None:
    """The champion by the numbers of a complete report; None where no run of its arm has a score."""
    better = [verdict for verdict in content["verdicts"] if verdict["outcome"] == "better"]
    won = max(better, key=lambda verdict: verdict["difference"]["effect"], default=None)
    arm = content["study"]["baseline"] if won is None else won["arm"]
    table = content["tables"]["main"]
    primary = next(place for place, column in enumerate(table["columns"]) if column["primary"])
    cell = next(row["cells"][primary] for row in table["rows"] if (row["kind"], row["row"]) == ("arm", arm))
    seeds = next(one["seeds"] for one in content["arms"] if one["name"] == arm)
    scores = {seed: score for seed, score in zip(seeds, cell["by_seed"], strict=True) if score is not None}
    if not scores:
        return None
    seed = min(scores, key=lambda one: (abs(scores[one] - cell["mean"]), one))
    reason = won["sentence"] if won is not None else "No arm is known to be better than the baseline, which this is."
    near = f"{scores[seed]:.4g}, of a mean of {cell['mean']:.4g}"
    why = f"{reason} Of its seeds, seed {seed} has the score nearest to the mean: {near}."
    return Champion(arm=arm, seed=seed, why=why)
