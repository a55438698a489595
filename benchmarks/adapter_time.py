"""Cost of the reward adapter: `GroupReward` with a reward in the worker process against a direct call.

128 completions in groups of 8, as in a training step, for a reward that scores completions one by one and one that
needs the group. The last line has the larger difference per completion; the aim is less than 1 ms.
Run from the project's root: python -m benchmarks.adapter_time
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from rlassay.records import Completion, PromptRow
from rlassay.rewards import REWARDS
from rlassay.rewards.sandbox.guard import guarded
from rlassay.training.group_reward import GroupReward

GROUPS, SIZE = 16, 8
REPEATS = 30
TEXT = f"<think>{'its upper stroke is flat and nothing closes it below ' * 8}</think><answer>B</answer>"
ROWS = {
    f"p{index}": PromptRow(prompt_id=f"p{index}", question="Which digit?", answer="B", choices=("3", "7", "1", "9"))
    for index in range(GROUPS)
}
SIGNAL = "modality_dominance/all"
MEASURED = [1.0 + index for index in range(GROUPS * SIZE)]


def seconds(score: Callable[[], object]) -> float:
    """Median wall time of a few runs after a first one, in seconds."""
    times: list[float] = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        score()
        times.append(time.perf_counter() - start)
    return median(times[1:])


def bare(name: str) -> Callable[[], object]:
    """Score the batch by direct calls of the reward."""
    measured = iter(MEASURED)
    groups = [[completion(row, next(measured)) for _ in range(SIZE)] for row in ROWS.values()]
    return lambda: [REWARDS[name](group) for group in groups]


def completion(row: PromptRow, measured: float) -> Completion:
    """A completion of one row."""
    return Completion(text=TEXT, token_count=100, finished=True, row=row, signals={SIGNAL: measured})


def adapted(name: str) -> Callable[[], object]:
    """Score the batch in TRL's signature, in the worker."""
    reward = GroupReward(
        guarded(name, {}, timeout=60.0, max_failures=0.1), rows=ROWS, num_generations=SIZE, end_token_ids=[1]
    )
    signals = [{SIGNAL: measured} for measured in MEASURED]
    texts: list[Any] = [TEXT] * (GROUPS * SIZE)
    ids = [[7] * 99 + [1]] * (GROUPS * SIZE)
    prompts = [prompt_id for prompt_id in ROWS for _ in range(SIZE)]
    return lambda: reward(texts, completion_ids=ids, prompt_id=prompts, completion_signals=signals)


def main() -> None:
    """Time both rewards, called directly and through the adapter."""
    added: dict[str, float] = {}
    for name in ("choice_accuracy", "vision_gain"):
        function, adapter = seconds(bare(name)), seconds(adapted(name))
        added[name] = (adapter - function) / (GROUPS * SIZE) * 1e3
        print(f"{name:16} function {function * 1e3:.2f} ms, adapter {adapter * 1e3:.2f} ms for {GROUPS * SIZE}")
    print(f"the adapter adds {max(added.values()):.3f} ms per completion (the larger of two rewards)")


if __name__ == "__main__":
    main()
