# pyright: basic
# Ranks prompts with pandas and reads scores with pyarrow, which ship no types.
"""Choose completions to show side by side, on the same few prompts in every row."""

from collections.abc import Iterator

import pandas as pd
import pyarrow.parquet as pq

from rlassay.names import in_words
from rlassay.records import CompletionRow, read_rows
from rlassay.report.credit_view import most_frames
from rlassay.report.gather import PolicyRow, Results, reading
from rlassay.report.numbers import Example, ShownCompletion
from rlassay.report.read.scores import DISAGREEMENT
from rlassay.report.sections import clip_facts
from rlassay.report.tables import primary_column, scores_of, tidy
from rlassay.report.verdicts import start_of

ARMS_DIFFER = "The arms differ most here: their means of {metric} range from {low:.2f} to {high:.2f}."
RL_CHANGED = "RL changed most here: mean {metric} went from {low:.2f} to {high:.2f}."
PARSERS_DISAGREE = "The strict and the lenient parser disagree most here: on {high:.0%} of the completions."
IN_ORDER = "The next prompt by prompt_id, because no rule selects another one."


def build_examples(results: Results, count: int) -> list[Example]:
    """`count` prompts of the primary set, by fixed rules, each with one completion per row.

    In turn: where arms differ most, where RL changed most, where the parsers disagree most; ties go to the smallest
    prompt_id. Every row shows sample 0 of its first seed, so that completions cannot be hand-picked.
    """
    name = results.study.primary.set
    chosen = _choose(results, min(count, len(results.prompts[name])))
    if not chosen:
        return []
    shown = {key: _completions(results, row, list(chosen)) for key, row in results.rows.items() if row.policies}
    return [_example(results, prompt_id, reason, shown) for prompt_id, reason in chosen.items()]


def _example(results: Results, prompt_id: str, reason: str, shown: dict[str, dict[str, ShownCompletion]]) -> Example:
    name = results.study.primary.set
    prompt = results.prompts[name][prompt_id]
    most = {results.rows[arm].label: frames for arm, frames in most_frames(results).items()}
    return Example(
        prompt_id=prompt_id,
        set=name,
        question=prompt.question,
        choices=prompt.choices,
        answer=prompt.answer,
        images=tuple(f"../data/{media.shown}" for media in prompt.media if media.shown),
        frames=tuple(media.num_frames for media in prompt.media if media.shown),
        clips=tuple(clip_facts(media, most) for media in prompt.media if media.kind == "video"),
        reason=reason,
        completions=tuple(found[prompt_id] for found in shown.values()),
    )


# Choosing prompts.


def _choose(results: Results, count: int) -> dict[str, str]:
    """Chosen prompt_id -> reason."""
    prompt_ids = sorted(results.prompts[results.study.primary.set])
    rankings = [list(ranking) for ranking in (_arms_differ(results), _rl_changed(results), _parsers_disagree(results))]
    chosen: dict[str, str] = {}
    while len(chosen) < count and any(rankings):
        for ranking in rankings:
            while ranking and ranking[0][0] in chosen:
                ranking.pop(0)
            if ranking and len(chosen) < count:
                prompt_id, reason = ranking.pop(0)
                chosen[prompt_id] = reason
    rest = [prompt_id for prompt_id in prompt_ids if prompt_id not in chosen]
    return chosen | dict.fromkeys(rest[: count - len(chosen)], IN_ORDER)


def _arms_differ(results: Results) -> Iterator[tuple[str, str]]:
    arms = _means(results, results.finished_arms)
    return _ranked(arms.min(axis=1), arms.max(axis=1), ARMS_DIFFER, results)


def _rl_changed(results: Results) -> Iterator[tuple[str, str]]:
    arms = [name for name in results.study.arms if results.rows[name].policies and start_of(results, name).policies]
    before = _means(results, [start_of(results, name) for name in arms])
    after = _means(results, [results.rows[name] for name in arms])
    return _ranked(before.mean(axis=1), after.mean(axis=1), RL_CHANGED, results)


def _parsers_disagree(results: Results) -> Iterator[tuple[str, str]]:
    primary = results.study.primary
    frames = [scores.means for (_, name), scores in results.scores.items() if name == primary.set]
    found = [frame[primary.mode, DISAGREEMENT] for frame in frames if (primary.mode, DISAGREEMENT) in frame]
    if not found:
        return iter(())
    share = pd.concat(found, axis=1).mean(axis=1)
    return _ranked(0 * share, share, PARSERS_DISAGREE, results)


def _means(results: Results, rows: list[PolicyRow]) -> pd.DataFrame:
    """The primary metric averaged over seeds: one row per prompt, one column per table row."""
    column = primary_column(results)
    prompt_ids = sorted(results.prompts[column.set])
    means = {
        place: pd.DataFrame(scores_of(results, row, column), columns=pd.Index(prompt_ids)).mean()
        for place, row in enumerate(rows)
    }
    return pd.DataFrame(means, index=pd.Index(prompt_ids))


def _ranked(low: pd.Series, high: pd.Series, reason: str, results: Results) -> Iterator[tuple[str, str]]:
    """prompt_id and reason, largest distance first; prompts without a distance are left out."""
    metric = in_words(results.study.primary.metric)
    ends = zip(low.index.astype(str), low.to_numpy(dtype=float), high.to_numpy(dtype=float), strict=True)
    found = [(-round(abs(b - a), 9), prompt_id, a, b) for prompt_id, a, b in ends if round(abs(b - a), 9) > 0]
    for _, prompt_id, a, b in sorted(found):
        yield prompt_id, reason.format(metric=metric, low=a, high=b)


# Reading their completions.


def _completions(results: Results, row: PolicyRow, prompt_ids: list[str]) -> dict[str, ShownCompletion]:
    """prompt_id -> sample 0 of the row's first seed, in the primary metric's mode."""
    primary, policy = results.study.primary, row.policies[0]
    path = results.layout.completions(policy.folder, primary.set)
    scores = _scores_of_sample_0(results, policy.folder, prompt_ids)
    shown: dict[str, ShownCompletion] = {}
    with reading(path, results.commands.remake(path)):
        for one in read_rows(path, CompletionRow):
            if one.prompt_id in scores and (one.mode, one.sample) == (primary.mode, 0):
                shown[one.prompt_id] = ShownCompletion(
                    row=row.key,
                    label=row.label,
                    seed=policy.seed,
                    text=one.text,
                    token_count=one.token_count,
                    finished=one.finished,
                    score=scores[one.prompt_id],
                )
        if absent := sorted(set(prompt_ids) - set(shown)):
            raise ValueError(f"it lacks sample 0 of {len(absent)} prompts, such as {absent[0]}")
    return shown


def _scores_of_sample_0(results: Results, folder: str, prompt_ids: list[str]) -> dict[str, float | None]:
    """prompt_id -> primary metric of sample 0."""
    primary = results.study.primary
    path = results.layout.scores(folder, primary.set)
    wanted = [("metric", "==", primary.metric), ("mode", "==", primary.mode), ("sample", "==", 0)]
    table = pq.read_table(path, columns=["prompt_id", "value"], filters=[*wanted, ("prompt_id", "in", prompt_ids)])
    found = dict(zip(table["prompt_id"].to_pylist(), table["value"].to_pylist(), strict=True))
    return {name: None if found.get(name) is None else tidy(found[name]) for name in prompt_ids}
