"""Select the credit viewer's content from completions that runs recorded token by token.

A watched completion is one whose tokens and signals were recorded during training. The viewer shows scenes (one prompt
at one step, with one completion of every arm) and, per arm, the words with the highest and the lowest credit. All
choices follow fixed rules.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from rlassay.config.model import HubModel, TinyVLM
from rlassay.records import Media, PromptRow, read_rows
from rlassay.report.content import (
    ArmWords,
    CreditWord,
    DocumentWord,
    ReadDocument,
    Scene,
    TokenCredit,
    WatchedCompletion,
    WordCredit,
)
from rlassay.report.findings.heat import heat_of
from rlassay.report.gather import PolicyRow, Results, reading
from rlassay.report.read.training import Watched, read_watched, watched_steps
from rlassay.report.tables import STORED_DECIMALS, over_seeds, tidy
from rlassay.report.typeset import quoted
from rlassay.token_words import Word, split_words, word_form, word_mean

MAX_COMPLETIONS = 24
"""Completions in all scenes together."""
MAX_WORDS = 100
"""Words shown of a completion; the middle of a longer one is left out."""
MAX_DOCUMENT_WORDS = 300
"""Words shown of a document; the end of a longer one is left out."""
MIN_COUNT = 10
"""Least number of occurrences of a ranked word."""
NUM_RANKED = 5
"""Words in each of the two rankings of an arm."""
MAX_STEPS = 12
"""Most steps of a run whose words are counted; a run with more counts that many evenly spaced ones."""
EVEN_TOLERANCE = 1e-6
"""Weights that differ by less count as equal."""
SIGNALS = ("perception", "entropy", "dominance")

Stage = Literal["first", "middle", "last"]
PRIORITY: tuple[Stage, ...] = ("first", "last", "middle")
"""The order in which stages are kept if not all of them fit."""
Group = list[Watched]
"""The watched completions of one prompt."""
WeightSums = dict[str, tuple[float, int]]
"""Word -> sum of its weights, number of its occurrences."""


class SceneChoice(NamedTuple):
    """The prompt and step of a possible scene."""

    step: int
    """The optimiser step."""
    rank: int
    """Position among the prompts watched at this step, from 0."""
    stage: Stage
    """Position of the step in training."""
    prompt_id: str
    """The prompt."""


class WatchedStep(NamedTuple):
    """The watched completions of all arms at one step."""

    step: int
    """The optimiser step."""
    arms: dict[str, dict[str, Group]]
    """Arm -> prompt_id -> group, in recorded order."""


def build_credit(results: Results, confidence: float) -> TokenCredit | None:
    """Scenes and ranked words; None if the runs recorded only equal weights of 1.

    The scenes are prompts that all arms watched at the first, middle and last of their common steps: the first prompt
    of each stage, then the second ones, until `MAX_COMPLETIONS` are reached.
    """
    seed, runs = choose_runs(results)
    if not runs:
        return None
    # 1. Choose prompts and arms.
    shown = dict(list(runs.items())[:MAX_COMPLETIONS])
    steps = watched_by_stage(results, shown)
    possible = possible_scenes(steps)
    chosen = sorted(possible[: max(1, MAX_COMPLETIONS // len(shown))])
    # 2. Build the scenes.
    prompts = _read_prompts(results, {choice.prompt_id for choice in chosen})
    most = most_frames(results)
    scenes = tuple(
        build_scene(choice, _groups_of(steps[choice.stage], choice), prompts[choice.prompt_id], most)
        for choice in chosen
    )
    # 3. Rank the words of all watched completions.
    words = tuple(rank_words(results, confidence))
    if all(arm.even == 1 for arm in words) and not any(_has_signals(scene) for scene in scenes):
        return None
    note = _note(results, seed, list(shown), len(scenes), len(possible))
    return TokenCredit(seed=seed, note=note, scenes=scenes, min_count=MIN_COUNT, max_steps=MAX_STEPS, words=words)


def _groups_of(watched: WatchedStep, choice: SceneChoice) -> dict[str, Group]:
    return {arm: groups[choice.prompt_id] for arm, groups in watched.arms.items()}


def _read_prompts(results: Results, prompt_ids: set[str]) -> dict[str, PromptRow]:
    path = results.layout.split("train")
    with reading(path, results.commands.remake(results.layout.data_manifest)):
        found = {row.prompt_id: row for row in read_rows(path) if row.prompt_id in prompt_ids}
        if absent := sorted(prompt_ids - set(found)):
            raise ValueError(f"it lacks {len(absent)} prompts of the training, such as {absent[0]}")
    return found


def _has_signals(scene: Scene) -> bool:
    """Whether anything besides weights was recorded."""
    return any(
        completion.heat is not None
        or completion.document is not None
        or completion.scale is not None
        or any(getattr(word, signal) is not None for word in completion.words for signal in SIGNALS)
        for completion in scene.completions
    )


def _note(results: Results, seed: int, arms: list[str], shown: int, possible: int) -> str:
    """The rules of the choice, and the arms not shown."""
    absent = [quoted(arm.label) for name, arm in results.study.arms.items() if name not in arms]
    sentences = ["No completions are shown, because the arms recorded no prompt in common."]
    if shown:
        sentences = [
            f"The completions are from the runs with seed {seed}. At each step, runs with the same seed see the same "
            "prompts in all arms.",
            "Of each group, the completion with the largest absolute advantage is shown.",
        ]
    if shown < possible:
        sentences.append(f"{shown} of the {possible} prompts that all arms recorded at these steps are shown.")
    if absent:
        sentences.append(f"Arms not shown: {', '.join(absent)}.")
    return " ".join(sentences)


# Choosing runs, steps and prompts.


def choose_runs(results: Results) -> tuple[int, dict[str, str]]:
    """The first seed with watched completions in most arms, and arm -> run folder; empty if there are none."""
    by_seed: dict[int, dict[str, str]] = {seed: {} for seed in results.study.seeds}
    for name in results.study.arms:
        for seed, folder in results.rows[name].folders.items():
            if seed is not None and watched_steps(results.layout.tokens(folder)):
                by_seed[seed][name] = folder
    seed = max(by_seed, key=lambda one: len(by_seed[one]))
    return seed, by_seed[seed]


def watched_by_stage(results: Results, runs: dict[str, str]) -> dict[Stage, WatchedStep]:
    """The first, middle and last step that all runs watched, in `PRIORITY` order."""
    shards = {arm: watched_steps(results.layout.tokens(folder)) for arm, folder in runs.items()}
    first, *others = shards.values()
    common = [step for step in first if all(step in steps for steps in others)]
    found: dict[Stage, WatchedStep] = {}
    for stage, step in choose_stages(common).items():
        arms = {arm: _read_groups(results, folder, shards[arm][step]) for arm, folder in runs.items()}
        found[stage] = WatchedStep(step, arms)
    return found


def choose_stages(steps: Sequence[int]) -> dict[Stage, int]:
    """The first, middle and last of ascending steps, in the order of `PRIORITY`; no step occurs twice."""
    places = {"first": 0, "last": len(steps) - 1, "middle": len(steps) // 2}
    found: dict[Stage, int] = {}
    for stage in PRIORITY:
        if steps and steps[places[stage]] not in found.values():
            found[stage] = steps[places[stage]]
    return found


def _read_groups(results: Results, folder: str, path: Path) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    with reading(path, results.commands.remake(results.layout.train_manifest(folder))):
        for row in read_watched(path):
            groups.setdefault(row["prompt_id"], []).append(row)
    return groups


def possible_scenes(steps: dict[Stage, WatchedStep]) -> list[SceneChoice]:
    """The prompts that all arms watched, best first.

    These are the first prompt of each stage, then the second ones, and so on.
    """
    every: list[tuple[int, int, SceneChoice]] = []
    for place, (stage, (step, arms)) in enumerate(steps.items()):
        first, *others = arms.values()
        shared = [prompt_id for prompt_id in first if all(prompt_id in groups for groups in others)]
        every += [(rank, place, SceneChoice(step, rank, stage, prompt_id)) for rank, prompt_id in enumerate(shared)]
    return [choice for *_, choice in sorted(every)]


# Building a scene.


def most_frames(results: Results) -> dict[str, int | None]:
    """Most frames of a clip that each arm shows; None for all."""
    models = {name: arm.recipe.model for name, arm in results.study.arms.items()}
    return {
        name: model.clips.max_frames if isinstance(model, TinyVLM | HubModel) else None
        for name, model in models.items()
    }


def build_scene(
    choice: SceneChoice, groups: dict[str, Group], prompt: PromptRow, most: Mapping[str, int | None]
) -> Scene:
    """One prompt at one step, with a completion of each arm's group.

    It is the completion of largest absolute advantage.

    Args:
        choice: prompt and step.
        groups: arm -> completions of the prompt.
        prompt: its row.
        most: see `most_frames`.
    """
    (media,) = prompt.media if len(prompt.media) == 1 else (None,)
    return Scene(
        stage=choice.stage,
        step=choice.step,
        rank=choice.rank,
        prompt_id=choice.prompt_id,
        question=prompt.question,
        choices=prompt.choices,
        answer=prompt.answer,
        image=f"../data/{media.shown}" if media is not None and media.shown else None,
        num_media=len(prompt.media),
        times=() if media is None else media.times,
        group_size=max(len(group) for group in groups.values()),
        completions=tuple(_completion(arm, group, media, most.get(arm)) for arm, group in groups.items()),
    )


def _completion(arm: str, group: Group, media: Media | None, most: int | None) -> WatchedCompletion:
    row = min(group, key=lambda one: (-abs(_finite(one["advantage"]) or 0.0), one["sample"]))
    words = split_words(row["tokens"])
    half = MAX_WORDS // 2
    kept = words if len(words) <= MAX_WORDS else [*words[:half], *words[-half:]]
    signals = {name: row[name] for name in ("weight", *SIGNALS)}
    return WatchedCompletion(
        arm=arm,
        sample=row["sample"],
        reward=_finite(row["reward"]),
        advantage=_finite(row["advantage"]),
        scale=_finite(row["scale"]),
        words=tuple(_word(piece, signals) for piece in kept),
        omitted=len(words) - len(kept),
        heat=heat_of(row["vision_attention"], row["vision_grid"], media, most),
        document=_document(row["document_tokens"], row["document_attention"]),
    )


def _word(piece: Word, signals: dict[str, Sequence[float | None] | None]) -> CreditWord:
    means = {name: _finite(word_mean(piece, values)) for name, values in signals.items()}
    return CreditWord(before=piece.before, text=piece.text, num_tokens=len(piece.tokens), **means)


def _document(tokens: list[str] | None, attention: list[float | None] | None) -> ReadDocument | None:
    """The words of a document with their attention; None unless each token has a finite number."""
    if not tokens or attention is None or len(attention) != len(tokens):
        return None
    finite = [value for value in attention if value is not None and isfinite(value)]
    if len(finite) != len(tokens):
        return None
    words = split_words([*tokens, " "])  # a document has no end token
    shared = Counter(index for word in words for index in word.tokens)
    shown = [
        DocumentWord(
            before=word.before,
            text=word.text,
            attention=float(f"{sum(finite[index] / shared[index] for index in word.tokens):.4g}"),
        )
        for word in words[:MAX_DOCUMENT_WORDS]
    ]
    return ReadDocument(words=tuple(shown), omitted=len(words) - len(shown), total=round(sum(finite), STORED_DECIMALS))


def _finite(value: float | None) -> float | None:
    return tidy(value) if value is not None and isfinite(value) else None


# Ranking words.


def rank_words(results: Results, confidence: float) -> list[ArmWords]:
    """The words with the highest and lowest mean weight of each arm; arms without watched completions are left out."""
    ranked: list[ArmWords] = []
    for name in results.study.arms:
        row = results.rows[name]
        runs = [_sum_weights(results, folder) for folder in row.folders.values()]
        if any(num_completions for _, num_completions in runs):
            ranked.append(_rank_arm(row, runs, confidence))
    return ranked


def _sum_weights(results: Results, folder: str) -> tuple[WeightSums, int]:
    """The summed weights of one run's words, and the number of completions."""
    sums: dict[str, float] = defaultdict(float)
    occurrences: dict[str, int] = defaultdict(int)
    num_completions = 0
    shards = list(watched_steps(results.layout.tokens(folder)).values())
    places: list[float] = np.linspace(0, len(shards) - 1, min(MAX_STEPS, len(shards))).tolist()
    for place in sorted({round(place) for place in places}):
        with reading(shards[place], results.commands.remake(results.layout.train_manifest(folder))):
            for row in read_watched(shards[place], ("tokens", "weight")):
                num_completions += 1
                for piece in split_words(row["tokens"]):
                    weight = word_mean(piece, row["weight"])
                    if weight is not None:
                        sums[word_form(piece.text)] += weight
                        occurrences[word_form(piece.text)] += 1
    return {word: (sums[word], occurrences[word]) for word in sums}, num_completions


def _rank_arm(row: PolicyRow, runs: list[tuple[WeightSums, int]], confidence: float) -> ArmWords:
    sums = [of_run for of_run, _ in runs]
    words = sorted({word for of_run in sums for word in of_run})
    occurrences = {word: sum(of_run[word][1] for of_run in sums if word in of_run) for word in words}
    means = {word: float(np.nanmean(_means_of_runs(word, sums))) for word in words}
    even = bool(means) and max(means.values()) - min(means.values()) < EVEN_TOLERANCE
    frequent = [word for word in words if occurrences[word] >= MIN_COUNT]
    num_ranked = 0 if even else min(NUM_RANKED, len(frequent) // 2)  # so that no word is in both rankings

    def rank(sign: int) -> tuple[WordCredit, ...]:
        best = sorted(frequent, key=lambda word: (sign * means[word], word))[:num_ranked]
        estimates = {word: over_seeds(_means_of_runs(word, sums), occurrences[word], confidence) for word in best}
        return tuple(WordCredit(word=word, weight=weight) for word, weight in estimates.items())

    return ArmWords(
        arm=row.key,
        num_seeds=sum(num_completions > 0 for _, num_completions in runs),
        num_completions=sum(num_completions for _, num_completions in runs),
        num_words=len(frequent),
        even=tidy(means[words[0]]) if even else None,
        most=rank(-1),
        least=rank(1),
    )


def _means_of_runs(word: str, sums: list[WeightSums]) -> Float[np.ndarray, " runs"]:
    """Mean weight of a word in each run; NaN for a run without the word."""
    return np.array([of_run[word][0] / of_run[word][1] if word in of_run else np.nan for of_run in sums])


# Tables.


def credit_rows(credit: TokenCredit) -> dict[str, list[dict[str, Any]]]:
    """Rows of tables: `credit_words`, the ranked words; `credit_scenes`, every word of the scenes; `credit_documents`,
    where there are any, every word of their documents."""
    ranked = [
        {"arm": arm.arm, "end": end, "word": one.word, **one.weight.model_dump()}
        for arm in credit.words
        for end, words in (("most", arm.most), ("least", arm.least))
        for one in words
    ]
    shown = _scene_rows(credit, lambda one: one.words)
    read = _scene_rows(credit, lambda one: () if one.document is None else one.document.words)
    return {"credit_words": ranked, "credit_scenes": shown} | ({"credit_documents": read} if read else {})


def _scene_rows(
    credit: TokenCredit, words_of: Callable[[WatchedCompletion], Sequence[CreditWord | DocumentWord]]
) -> list[dict[str, Any]]:
    return [
        {"step": scene.step, "prompt_id": scene.prompt_id, "arm": one.arm, "sample": one.sample, **word.model_dump()}
        for scene in credit.scenes
        for one in scene.completions
        for word in words_of(one)
    ]
