"""A hand-made `TokenCredit`: two scenes, four arms, every signal in all arms but the first."""

from rlassay.report.content import (
    ArmWords,
    CreditWord,
    Heat,
    Scene,
    TokenCredit,
    WatchedCompletion,
    WordCredit,
)
from rlassay.report.numbers import Estimate

ARMS = ("base", "accuracy_only", "format_only", "dr_grpo")
HOSTILE = "<script>alert('inert?')</script>"


def fake_credit() -> TokenCredit:
    """Weights 0, 0.5, 1 and 2; perception up to 0.4 nats; a 2 x 2 grid with a quarter of the attention."""
    return TokenCredit(
        seed=1,
        note="Runs of seed 1.",
        scenes=(_scene("first", 1), _scene("last", 30)),
        min_count=10,
        max_steps=12,
        words=tuple(_words(arm) for arm in ARMS),
    )


def _scene(stage: str, step: int) -> Scene:
    return Scene(
        stage=stage,
        step=step,
        rank=0,
        prompt_id="8899eeff",
        question="Which digit is larger?",
        choices=("1", "3"),
        answer="B",
        image="../digit.png",
        group_size=8,
        completions=tuple(_completion(arm) for arm in ARMS),
    )


def _completion(arm: str) -> WatchedCompletion:
    measured = arm != "base"
    values = [("", "<think>", 0.0, 0.0), (" ", "seven", 2.0, 0.4), ("\n", HOSTILE, 0.5, 0.1), (" ", "B", 1.0, None)]
    words = tuple(
        CreditWord(
            before=before,
            text=text,
            num_tokens=1,
            weight=weight if measured else 1.0,
            perception=perception if measured else None,
            entropy=0.25 if measured else None,
            dominance=8.0 if measured else None,
        )
        for before, text, weight, perception in values
    )
    heat = Heat(rows=2, cols=2, cells=(0.0, 0.05, 0.1, 0.1), total=0.25) if measured else None
    return WatchedCompletion(
        arm=arm,
        sample=2,
        reward=1.5,
        advantage=-0.75,
        scale=1.05 if arm == "dr_grpo" else None,
        words=words,
        omitted=17 if arm == "dr_grpo" else 0,
        heat=heat,
    )


def _words(arm: str) -> ArmWords:
    ranked = tuple(_ranked(word, mean) for word, mean in (("seven", 2.0), (HOSTILE, 1.5)))
    return ArmWords(
        arm=arm,
        num_seeds=3,
        num_completions=1200,
        num_words=31,
        even=1.0 if arm == "base" else None,
        most=() if arm == "base" else ranked,
        least=() if arm == "base" else (_ranked("<think>", 0.0),),
    )


def _ranked(word: str, mean: float) -> WordCredit:
    weight = Estimate(mean=mean, low=mean - 0.1, high=mean + 0.1, num_seeds=3, num_items=240, covers="seeds")
    return WordCredit(word=word, weight=weight)
