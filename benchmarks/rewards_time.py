"""How long the rewards take for 1,024 completions in groups of 8.

The aims: all rule-based rewards together under 0.25 s, the two ROUGE rewards together under 2 s. Both are printed last.
`math_accuracy` judges plain numbers here; formulas go to math-verify's own process, at some 10 ms each.
"""

import time
from collections.abc import Sequence

import numpy as np

from rlassay.records import Completion, PromptRow
from rlassay.rewards import score_group

GROUPS, SIZE = 128, 8
REPEATS = 5
LENGTH = {"max_completion_length": 384}
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
    """Completions with thoughts of 40 to 80 words and one of these ends each."""
    row = PromptRow(prompt_id="p", question="Which digit?", answer=answer, choices=("3", "7", "1", "9"))

    def completion() -> Completion:
        thought = " ".join(generator.choice(WORDS, generator.integers(40, 80)))
        signals = {f"modality_dominance/{part}": float(generator.uniform(1, 40)) for part in ("late", "all")}
        text = f"<think>{thought}</think>{generator.choice(ends)}"
        return Completion(text=text, token_count=100, finished=True, row=row, signals=signals)

    return [[completion() for _ in range(SIZE)] for _ in range(GROUPS)]


def seconds(rewards: dict[str, dict[str, object]], batches: list[list[Completion]]) -> float:
    """Best processor time of a few runs, in seconds, the first of which also pays for imports."""
    times: list[float] = []
    for _ in range(REPEATS):
        start = time.process_time()
        for batch in batches:
            score_group(rewards, batch)
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Time each reward, then both families."""
    generator = np.random.default_rng(0)
    choices = groups("B", generator, ["<answer>B</answer>", "The answer is C.", "<answer>A</answer>", "I don't know"])
    numbers = groups("42", generator, ["<answer>42</answer>", r"\boxed{41}", "<answer>1,000</answer>"])
    summary = " ".join(generator.choice(WORDS, 40))
    summaries = groups(summary, generator, [""])
    batches = {"math_accuracy": numbers} | dict.fromkeys(ROUGE, summaries)
    times = {name: seconds({name: options}, batches.get(name, choices)) for name, options in (RULES | ROUGE).items()}
    for name, value in times.items():
        print(f"{name:30} {value:.4f} s")
    rules, rouge = (sum(times[name] for name in family) for family in (RULES, ROUGE))
    print(f"{GROUPS * SIZE} completions: rule-based rewards {rules:.3f} s, ROUGE {rouge:.2f} s")


if __name__ == "__main__":
    main()
