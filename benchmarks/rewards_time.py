"""How long the rewards take for 1,024 completions in groups of 8, as training and evaluation call them: in the worker.

The last line has the sums; the aims are 0.5 s for all rule-based rewards and 2 s for the two ROUGE rewards.
`math_accuracy` compares plain numbers here; a formula takes math-verify some 10 ms.
Run from the project's root: python -m benchmarks.rewards_time
"""

import time
from collections.abc import Sequence

import numpy as np

from rlassay.records import Completion, PromptRow
from rlassay.rewards.sandbox.guard import guarded

GROUPS, SIZE = 128, 8
REPEATS = 5
LENGTH: dict[str, object] = {"max_completion_length": 384}
RULES: dict[str, dict[str, object]] = {
    "choice_accuracy": {},
    "exact_match": {},
    "math_accuracy": {},
    "action_set_iou": {},
    "think_format": {},
    "think_answer_format": {},
    "strict_think_answer_format": {},
    "modality_balance": {},
    "vision_gain": {},
    "soft_overlong": LENGTH | {"cache": 50},
    "accuracy_conditioned_length": LENGTH,
    "length_similarity": {},
}
ROUGE: dict[str, dict[str, object]] = {"rouge_average": {}, "rouge_l": {}}
SENTENCE = "the digit in image looks like a seven because its upper stroke is flat and nothing closes it below"
WORDS = SENTENCE.split()


def groups(answer: str, generator: np.random.Generator, ends: Sequence[str]) -> list[list[Completion]]:
    """Groups of completions, each a thought of 40 to 80 words and one of the ends."""
    row = PromptRow(prompt_id="p", question="Which digit?", answer=answer, choices=("3", "7", "1", "9"))

    def completion() -> Completion:
        thought = " ".join(generator.choice(WORDS, generator.integers(40, 80)))
        signals = {f"modality_dominance/{part}": float(generator.uniform(1, 40)) for part in ("late", "all")}
        text = f"<think>{thought}</think>{generator.choice(ends)}"
        return Completion(text=text, token_count=100, finished=True, row=row, signals=signals)

    return [[completion() for _ in range(SIZE)] for _ in range(GROUPS)]


def seconds(name: str, options: dict[str, object], batches: list[list[Completion]]) -> float:
    """Shortest wall time of a few runs after a first one, which pays for imports."""
    reward = guarded(name, options, timeout=60.0, max_failures=0.1)
    times: list[float] = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        for batch in batches:
            reward(batch)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main() -> None:
    """Time each reward, then both families."""
    generator = np.random.default_rng(0)
    choices = groups("B", generator, ["<answer>B</answer>", "The answer is C.", "<answer>A</answer>", "I don't know"])
    numbers = groups("42", generator, ["<answer>42</answer>", r"\boxed{41}", "<answer>1,000</answer>"])
    summary = " ".join(generator.choice(WORDS, 40))
    summaries = groups(summary, generator, [""])
    batches = {"math_accuracy": numbers} | dict.fromkeys(ROUGE, summaries)
    times = {name: seconds(name, options, batches.get(name, choices)) for name, options in (RULES | ROUGE).items()}
    for name, value in times.items():
        print(f"{name:30} {value:.4f} s")
    rules, rouge = (sum(times[name] for name in family) for family in (RULES, ROUGE))
    print(f"{GROUPS * SIZE} completions: rule-based rewards {rules:.3f} s, ROUGE {rouge:.2f} s")


if __name__ == "__main__":
    main()
