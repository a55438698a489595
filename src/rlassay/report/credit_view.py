"""The credit viewer: the same watched prompts at a few steps of training, with one completion of every arm."""

from rlassay.records import PromptRow, read_rows
from rlassay.report.credit_choice import AtStep, Chosen, Group, candidates, groups_by_stage, watched_runs
from rlassay.report.credit_ranking import MAX_STEPS, MIN_COUNT, rank_words
from rlassay.report.credit_records import Scene, TokenCredit
from rlassay.report.credit_scenes import build_scene
from rlassay.report.gather import Results
from rlassay.report.reading import blaming

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
    with blaming(path, results.commands.again(results.layout.data_sentinel)):
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
