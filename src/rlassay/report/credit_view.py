"""The credit viewer: the same watched prompts at a few steps of training, with one completion of every arm."""

from collections import defaultdict
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from rlassay.records import PromptRow, read_rows
from rlassay.report.content import ArmWords, CreditWord, Heat, Scene, TokenCredit, WatchedCompletion, WordCredit
from rlassay.report.gather import Results, Row, Watched, blaming, read_watched, watched_steps
from rlassay.report.tables import DECIMALS, over_seeds, tidy
from rlassay.token_words import Word, split_words, word_form, word_mean

# MERGED FROM report.credit_choice: Which prompts the credit viewer shows: the same ones for every arm, chosen
# by fixed rules.

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
        stage: AtStep(
            step, {arm: _completion_groups(results, folder, shards[arm][step]) for arm, folder in runs.items()}
        )
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


def _completion_groups(results: Results, folder: str, path: Path) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    with blaming(path, results.commands.again(results.layout.train_manifest(folder))):
        for row in read_watched(path):
            groups.setdefault(row["prompt_id"], []).append(row)
    return groups


# MERGED FROM report.credit_scenes: From watched rows to scenes: one prompt at one step, one completion of every
# arm, words and heat.

MAX_WORDS = 100
"""Words of a completion; of a longer one the middle is left out."""
MAX_CELLS = 24
"""Cells along one side of an image; finer grids are pooled."""


def build_scene(chosen: Chosen, groups: dict[str, Group], prompt: PromptRow) -> Scene:
    """One prompt at one step; of each arm's group the completion with the largest advantage in size."""
    images = [media.path for media in prompt.media if media.kind == "image"]
    image = f"../data/{images[0]}" if len(images) == len(prompt.media) == 1 else None
    return Scene(
        stage=chosen.stage,
        step=chosen.step,
        rank=chosen.rank,
        prompt_id=chosen.prompt_id,
        question=prompt.question,
        choices=prompt.choices,
        answer=prompt.answer,
        image=image,
        group_size=max(len(group) for group in groups.values()),
        completions=tuple(_completion(arm, group, image is not None) for arm, group in groups.items()),
    )


def _completion(arm: str, group: Group, has_image: bool) -> WatchedCompletion:
    row = min(group, key=lambda one: (-abs(_finite(one["advantage"]) or 0.0), one["sample"]))
    found = split_words(row["tokens"])
    half = MAX_WORDS // 2
    kept = found if len(found) <= MAX_WORDS else [*found[:half], *found[-half:]]
    signals = {name: row[name] for name in ("weight", "perception", "entropy", "dominance")}
    return WatchedCompletion(
        arm=arm,
        sample=row["sample"],
        reward=_finite(row["reward"]),
        advantage=_finite(row["advantage"]),
        scale=_finite(row["scale"]),
        words=tuple(_word(piece, signals) for piece in kept),
        omitted=len(found) - len(kept),
        heat=_heat(row["vision_attention"], row["vision_grid"]) if has_image else None,
    )


def _word(piece: Word, signals: dict[str, Sequence[float | None] | None]) -> CreditWord:
    means = {name: _finite(word_mean(piece, values)) for name, values in signals.items()}
    return CreditWord(before=piece.before, text=piece.text, num_tokens=len(piece.tokens), **means)


def _heat(attention: list[float | None] | None, grid: list[int] | None) -> Heat | None:
    """The attention laid out over the image; None unless there is one finite number per cell."""
    if attention is None or grid is None or len(grid) != 2 or len(attention) != grid[0] * grid[1]:
        return None
    mass = np.array([np.nan if value is None else value for value in attention]).reshape(grid)
    if not mass.size or not np.isfinite(mass).all():
        return None
    cells = pooled(mass)
    values = tuple(float(f"{value:.4g}") for value in cells.ravel())  # shares far below one: places would not do
    return Heat(rows=len(cells), cols=cells.shape[1], cells=values, total=round(float(mass.sum()), DECIMALS))


def pooled(mass: Float[np.ndarray, "rows cols"]) -> Float[np.ndarray, "fewer_rows fewer_cols"]:
    """Means over equal blocks, such that no side has more than `MAX_CELLS` cells."""
    size = -(-max(mass.shape) // MAX_CELLS)
    for axis in (0, 1):
        blocks = np.array_split(mass, -(-mass.shape[axis] // size), axis=axis)
        mass = np.stack([block.mean(axis=axis) for block in blocks], axis=axis)
    return mass


def _finite(value: float | None) -> float | None:
    return tidy(value) if value is not None and isfinite(value) else None


# MERGED FROM report.credit_ranking: The words with most and least credit in each arm, over all its watched
# completions.

MIN_COUNT = 10
"""Occurrences from which on a word is ranked."""
RANKED = 5
"""Words at either end."""
MAX_STEPS = 12
"""Shards read of each run; of more, as many evenly spaced ones."""
EVEN = 1e-6
"""Weights that differ less are alike."""

Tally = dict[str, tuple[float, int]]
"""Word -> sum of its weights, and how often it occurred."""


def rank_words(results: Results, confidence: float) -> list[ArmWords]:
    """Most and least credit per arm, in the study's order; an arm without watched completions is left out."""
    rows = [results.rows[name] for name in results.study.arms]
    ranked = [_arm(row, [_tally(results, folder) for folder in row.folders.values()], confidence) for row in rows]
    return [one for one in ranked if one.num_completions]


def _tally(results: Results, folder: str) -> tuple[Tally, int]:
    """The words of one run, and how many completions they are from."""
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    completions = 0
    shards = list(watched_steps(results.layout.tokens(folder)).values())
    places = sorted({round(place) for place in np.linspace(0, len(shards) - 1, min(MAX_STEPS, len(shards)))})
    for place in places:
        with blaming(shards[place], results.commands.again(results.layout.train_manifest(folder))):
            for row in read_watched(shards[place], ("tokens", "weight")):
                completions += 1
                for piece in split_words(row["tokens"]):
                    weight = word_mean(piece, row["weight"])
                    if weight is not None:
                        sums[word_form(piece.text)] += weight
                        counts[word_form(piece.text)] += 1
    return {word: (sums[word], counts[word]) for word in sums}, completions


def _arm(row: Row, runs: list[tuple[Tally, int]], confidence: float) -> ArmWords:
    tallies = [tally for tally, _ in runs]
    counts = {word: sum(tally[word][1] for tally in tallies if word in tally) for word in sorted(set().union(*tallies))}
    means = {word: float(np.nanmean(_over_runs(word, tallies))) for word in counts}
    even = bool(means) and max(means.values()) - min(means.values()) < EVEN
    often = [word for word in counts if counts[word] >= MIN_COUNT]
    num_ranked = 0 if even else min(RANKED, len(often) // 2)  # no word stands at both ends

    def best(sign: int) -> tuple[WordCredit, ...]:
        ranked = sorted(often, key=lambda word: (sign * means[word], word))[:num_ranked]
        estimates = {word: over_seeds(_over_runs(word, tallies), counts[word], confidence) for word in ranked}
        return tuple(WordCredit(word=word, weight=weight) for word, weight in estimates.items())

    return ArmWords(
        arm=row.key,
        num_seeds=sum(completions > 0 for _, completions in runs),
        num_completions=sum(completions for _, completions in runs),
        num_words=len(often),
        even=tidy(next(iter(means.values()))) if even else None,
        most=best(-1),
        least=best(1),
    )


def _over_runs(word: str, tallies: list[Tally]) -> np.ndarray:
    """Mean weight of a word in each run; NaN in a run that never used it."""
    return np.array([tally[word][0] / tally[word][1] if word in tally else np.nan for tally in tallies])


# MERGED FROM report.credit_view: The credit viewer: the same watched prompts at a few steps of training, with
# one completion of every arm.

MAX_COMPLETIONS = 24
"""Completions on the page, all scenes together."""
SIGNALS = ("perception", "entropy", "dominance")


def build_credit(results: Results, confidence: float) -> TokenCredit | None:
    """What the runs recorded token by token; None where they recorded nothing but the even weight 1.

    The scenes are the prompts that all arms watched at the first, the middle and the last step that all arms have, as
    many as fit: first the first prompt of each stage, then the others.
    """
    seed, runs = watched_runs(results)
    if not runs:
        return None
    # 1. Which prompts, in which arms.
    shown = dict(list(runs.items())[:MAX_COMPLETIONS])
    found = groups_by_stage(results, shown)
    possible = candidates(found)
    chosen = sorted(possible[: max(1, MAX_COMPLETIONS // len(shown))])
    # 2. What they look like.
    prompts = _prompts(results, {one.prompt_id for one in chosen})
    scenes = tuple(build_scene(one, _groups(found[one.stage], one), prompts[one.prompt_id]) for one in chosen)
    # 3. What holds for all of them.
    words = tuple(rank_words(results, confidence))
    if all(arm.even == 1 for arm in words) and not any(_measured(scene) for scene in scenes):
        return None
    note = _note(results, seed, list(shown), len(scenes), len(possible))
    return TokenCredit(seed=seed, note=note, scenes=scenes, min_count=MIN_COUNT, max_steps=MAX_STEPS, words=words)


def _groups(at_step: AtStep, chosen: Chosen) -> dict[str, Group]:
    return {arm: groups[chosen.prompt_id] for arm, groups in at_step.arms.items()}


def _prompts(results: Results, prompt_ids: set[str]) -> dict[str, PromptRow]:
    path = results.layout.split("train")
    with blaming(path, results.commands.again(results.layout.data_manifest)):
        found = {row.prompt_id: row for row in read_rows(path) if row.prompt_id in prompt_ids}
        if absent := sorted(prompt_ids - set(found)):
            raise ValueError(f"it lacks {len(absent)} prompts that were trained on, such as {absent[0]}")
    return found


def _measured(scene: Scene) -> bool:
    """Whether anything but weights was recorded."""
    return any(
        completion.heat is not None
        or completion.scale is not None
        or any(getattr(word, signal) is not None for word in completion.words for signal in SIGNALS)
        for completion in scene.completions
    )


def _note(results: Results, seed: int, arms: list[str], shown: int, possible: int) -> str:
    """How scenes and completions were chosen, and what was left out."""
    labels = [arm.label for name, arm in results.study.arms.items() if name not in arms]
    sentences = [
        f"Runs of seed {seed}: with the same seed, all arms see the same prompts at the same step." if shown else "",
        "Of each group, the completion with the largest advantage in size is shown." if shown else "",
        f"{shown} of the {possible} prompts that all arms watched at these steps fit." if shown < possible else "",
        f"Not shown: {', '.join(labels)}." if labels else "",
        "" if shown else "The arms watched no prompt in common, so none is shown.",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


# MERGED FROM report.credit_tables: Token credit as tables, for readers of `tables/*.csv`.


def credit_frames(credit: TokenCredit) -> dict[str, pd.DataFrame]:
    """`credit_words`: the words with most and least credit; `credit_scenes`: every word of the scenes."""
    ranked = [
        {"arm": arm.arm, "end": end, "word": one.word, **one.weight.model_dump()}
        for arm in credit.words
        for end, words in (("most", arm.most), ("least", arm.least))
        for one in words
    ]
    shown = [
        {"step": scene.step, "prompt_id": scene.prompt_id, "arm": one.arm, "sample": one.sample, **word.model_dump()}
        for scene in credit.scenes
        for one in scene.completions
        for word in one.words
    ]
    return {"credit_words": pd.DataFrame(ranked), "credit_scenes": pd.DataFrame(shown)}
