"""Completions side by side: a few prompts that tell the arms apart, the same ones for every row."""

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from PIL import Image

from rlassay.records import CompletionRow, read_rows
from rlassay.report.gather import DISAGREEMENT, Results, Row, blaming
from rlassay.report.numbers import Example, ShownCompletion
from rlassay.report.tables import primary_column, scores_of, tidy
from rlassay.report.verdicts import start_of

# MERGED FROM report.examples: Completions side by side: a few prompts that tell the arms apart, the same ones
# for every row.

DIFFER = "The arms differ most here: their means of {metric} go from {low:.2f} to {high:.2f}."
CHANGED = "RL changed most here: mean {metric} went from {low:.2f} to {high:.2f}."
GRADED = "The strict and the lenient parser disagree most here: on {high:.0%} of the completions."
IN_ORDER = "The next prompt in order; nothing sets it apart."


def build_examples(results: Results, count: int) -> list[Example]:
    """`count` prompts of the primary evaluation set, chosen by fixed rules, each with the first sample of every row.

    In turn: where arms differ most, where RL changed most, where the parsers disagree most; ties go to the smallest
    prompt_id. Every row shows sample 0 of its first seed, so that nothing is picked among the completions.
    """
    name = results.study.primary.set
    chosen = _choose(results, min(count, len(results.prompts[name])))
    if not chosen:
        return []
    shown = {key: _completions(results, row, list(chosen)) for key, row in results.rows.items() if row.policies}
    return [_example(results, prompt_id, reason, shown) for prompt_id, reason in chosen.items()]


def _choose(results: Results, count: int) -> dict[str, str]:
    """Chosen prompt_id -> why."""
    prompt_ids = sorted(results.prompts[results.study.primary.set])
    rankings = [list(ranking) for ranking in (_differ(results), _changed(results), _graded(results))]
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


def _differ(results: Results) -> Iterator[tuple[str, str]]:
    arms = _means(results, [row for row in results.rows.values() if row.kind == "arm" and row.policies])
    return _ranked(arms.min(axis=1), arms.max(axis=1), DIFFER, results)


def _changed(results: Results) -> Iterator[tuple[str, str]]:
    arms = [name for name in results.study.arms if results.rows[name].policies and start_of(results, name).policies]
    before = _means(results, [start_of(results, name) for name in arms])
    after = _means(results, [results.rows[name] for name in arms])
    return _ranked(before.mean(axis=1), after.mean(axis=1), CHANGED, results)


def _graded(results: Results) -> Iterator[tuple[str, str]]:
    primary = results.study.primary
    frames = [scores.means for (_, name), scores in results.scores.items() if name == primary.set]
    found = [frame[primary.mode, DISAGREEMENT] for frame in frames if (primary.mode, DISAGREEMENT) in frame]
    if not found:
        return iter(())
    share = pd.concat(found, axis=1).mean(axis=1)
    return _ranked(0 * share, share, GRADED, results)


def _means(results: Results, rows: list[Row]) -> pd.DataFrame:
    """One row per prompt, one column per table row: the primary metric, averaged over seeds."""
    column = primary_column(results)
    prompt_ids = sorted(results.prompts[column.set])
    means = {
        place: pd.DataFrame(scores_of(results, row, column), columns=pd.Index(prompt_ids)).mean()
        for place, row in enumerate(rows)
    }
    return pd.DataFrame(means, index=pd.Index(prompt_ids))


def _ranked(low: pd.Series, high: pd.Series, reason: str, results: Results) -> Iterator[tuple[str, str]]:
    """Prompts by falling distance, with the reason worded; those without a distance are left out."""
    metric = results.study.primary.metric.replace("_", " ")
    ends = zip(low.index.astype(str), low.to_numpy(dtype=float), high.to_numpy(dtype=float), strict=True)
    found = [(-round(abs(b - a), 9), prompt_id, a, b) for prompt_id, a, b in ends if round(abs(b - a), 9) > 0]
    for _, prompt_id, a, b in sorted(found):
        yield prompt_id, reason.format(metric=metric, low=a, high=b)


def _example(results: Results, prompt_id: str, reason: str, shown: dict[str, dict[str, ShownCompletion]]) -> Example:
    name = results.study.primary.set
    prompt = results.prompts[name][prompt_id]
    return Example(
        prompt_id=prompt_id,
        set=name,
        question=prompt.question,
        choices=prompt.choices,
        answer=prompt.answer,
        images=tuple(f"../data/{media.path}" for media in prompt.media),
        reason=reason,
        completions=tuple(found[prompt_id] for found in shown.values()),
    )


def _completions(results: Results, row: Row, prompt_ids: list[str]) -> dict[str, ShownCompletion]:
    """prompt_id -> the row's completion: sample 0 of its first seed, decoded as the primary metric asks for."""
    primary, policy = results.study.primary, row.policies[0]
    path = results.layout.completions(policy.folder, primary.set)
    scores = _scores(results, policy.folder, prompt_ids)
    shown: dict[str, ShownCompletion] = {}
    with blaming(path, results.commands.again(path)):
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


def _scores(results: Results, folder: str, prompt_ids: list[str]) -> dict[str, float | None]:
    """prompt_id -> the primary metric of that completion."""
    primary = results.study.primary
    path = results.layout.scores(folder, primary.set)
    wanted = [("metric", "==", primary.metric), ("mode", "==", primary.mode), ("sample", "==", 0)]
    table = pq.read_table(path, columns=["prompt_id", "value"], filters=[*wanted, ("prompt_id", "in", prompt_ids)])
    found = dict(zip(table["prompt_id"].to_pylist(), table["value"].to_pylist(), strict=True))
    return {name: None if found.get(name) is None else tidy(found[name]) for name in prompt_ids}


# MERGED FROM report.thumbnails: Images of prompts, small enough to be part of the page.

LARGEST = 320
"""Pixels on the longer side of a thumbnail."""
LIGHT_ENOUGH = 40_000
"""Bytes up to which a file that is small enough is taken as it is."""


def thumbnail(file: Path) -> dict[str, str | int]:
    """A small version of an image as a data URI, with its size in pixels; without one when the file is absent."""
    if not file.is_file():
        return {"uri": "", "width": 0, "height": 0}
    with Image.open(file) as image:
        content, kind, size = file.read_bytes(), Image.MIME[image.format or "PNG"], image.size
        if max(size) > LARGEST or len(content) > LIGHT_ENOUGH:
            content, kind, size = _shrunk(image)
    uri = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return {"uri": uri, "width": size[0], "height": size[1]}


def _shrunk(image: Image.Image) -> tuple[bytes, str, tuple[int, int]]:
    image.draft("RGB", (2 * LARGEST, 2 * LARGEST))  # lets the JPEG decoder skip what will not be seen
    small = image.convert("RGBA")
    small.thumbnail((LARGEST, LARGEST))
    paper = Image.new("RGB", small.size, "white")
    paper.paste(small, mask=small)
    buffer = BytesIO()
    paper.save(buffer, "JPEG", quality=80)
    return buffer.getvalue(), "image/jpeg", paper.size
