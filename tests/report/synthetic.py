"""A complete results folder with known effects, written without training anything."""

import hashlib
import json
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from rlassay.config.data import Digits
from rlassay.config.engine import Evaluation
from rlassay.config.fingerprints import model_id, rl_id, sft_policy
from rlassay.config.model import TinyVLM
from rlassay.config.study import Arm, Primary, Study
from rlassay.config.training import Recipe, RewardConfig, RLConfig, SFTConfig
from rlassay.layout import Layout
from rlassay.records import CompletionRow, Media, PromptRow, write_rows

WEIGHTS = {
    "base": {"choice_accuracy": 1.0, "think_answer_format": 0.5, "soft_overlong": 0.0},
    "accuracy_only": {"choice_accuracy": 1.0, "think_answer_format": 0.0, "soft_overlong": 0.0},
    "format_only": {"choice_accuracy": 0.0, "think_answer_format": 0.5, "soft_overlong": 0.0},
    "dr_grpo": {"choice_accuracy": 1.0, "think_answer_format": 0.5, "soft_overlong": 0.0},
}
ACCURACY = {"untrained": 0.05, "sft": 0.35, "base": 0.45, "accuracy_only": 0.57, "format_only": 0.33, "dr_grpo": 0.45}
FORMAT = {"untrained": 0.0, "sft": 0.6, "base": 0.97, "accuracy_only": 0.9, "format_only": 0.99, "dr_grpo": 0.96}
HOSTILE = "<script>alert('a completion must be inert')</script>"
REFUSED = {
    "duplicate: nearly the same prompt is in the split 'sft'": 3,
    "gold answer does not score": 1,
    "leak: nearly the same image is in the split 'test'": 2,
}
REJECTED = [
    {"where": "sft.json: record 3", "reason": "gold answer does not score", "detail": "E of 4 options"},
    {"where": "sft.json: record 5", "reason": "leak: nearly the same image is in the split 'test'", "detail": ""},
]
VERSIONS = {"torch": "2.13.0", "transformers": "5.17.0", "trl": "1.16.0", "rlassay": "0.1.0"}


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of the results folder."""

    arms: tuple[str, ...] = tuple(WEIGHTS)
    seeds: tuple[int, ...] = (1, 2, 3)
    items: int = 40
    samples: int = 4
    steps: int = 10
    prompts_per_step: int = 4
    generations: int = 4
    sft: bool = True
    per_seed: bool = False
    accuracy: dict[str, float] = field(default_factory=lambda: dict(ACCURACY))


def synthetic_study(size: Size) -> Study:
    """The resolved study of the folder."""
    return Study(
        name="synthetic",
        title="Does paying for the format help?",
        question="What do the accuracy reward, the format reward and the loss normalisation each add?",
        seeds=size.seeds,
        data=Digits(kind="digits", splits={"sft": 64, "train": 32, "test": size.items}),
        evaluation=Evaluation(num_samples=size.samples, max_completion_length=16),
        primary=Primary(),
        baseline="base",
        family=tuple(arm for arm in size.arms if arm != "base"),
        arms={arm: _arm(arm, size) for arm in size.arms},
    )


def _arm(name: str, size: Size) -> Arm:
    varies = {
        "accuracy_only": ("rewards.think_answer_format.weight",),
        "format_only": ("rewards.choice_accuracy.weight",),
        "dr_grpo": ("rl.loss_type", "rl.scale_rewards"),
    }
    changes = {"loss_type": "dr_grpo", "scale_rewards": "none"} if name == "dr_grpo" else {}
    batch = {"per_device_train_batch_size": 16, "save_steps": 5}
    weights = WEIGHTS.get(name, WEIGHTS["base"])
    return Arm(
        label=name.replace("_", " "),
        varies=varies.get(name, ()),
        recipe=Recipe(
            model=TinyVLM(kind="tiny_vlm"),
            sft=SFTConfig(max_steps=20, learning_rate=2e-3, per_seed=size.per_seed, **batch) if size.sft else None,
            rl=RLConfig(max_steps=size.steps, learning_rate=2e-4, max_completion_length=16, **batch, **changes),
            rewards={reward: RewardConfig(weight=weight) for reward, weight in weights.items()},
        ),
    )


def write_synthetic(results: Path, size: Size | None = None) -> tuple[Study, Layout]:
    """Write data, warm starts, runs, rollouts, completions and scores; return the study and its paths."""
    size = size or Size()
    study = synthetic_study(size)
    layout = Layout(root=results / study.id)
    rows = _write_data(layout, study)
    recipe = next(iter(study.arms.values())).recipe
    _write_evaluation(layout, f"models/{model_id(study, recipe)}", "untrained", rows, size)
    for policy in sorted({sft_policy(study, recipe, seed) or "" for seed in study.seeds} - {""}):
        _write_manifest(layout, policy, policy.split("/")[1], 20, "sft")
        _write_evaluation(layout, policy, "sft", rows, size)
    for arm in study.arms:
        for seed in study.seeds:
            policy = layout.run(arm, seed)
            _write_training(layout, policy, study, arm, size)
            _write_manifest(layout, policy, rl_id(study, arm, seed), size.steps)
            _write_evaluation(layout, policy, arm, rows, size)
    return study, layout


def _rng(text: str) -> np.random.Generator:
    return np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest()[:8], 16))


def _write_data(layout: Layout, study: Study) -> list[PromptRow]:
    image = BytesIO()
    Image.new("L", (16, 16), 128).save(image, "PNG")
    (layout.data / "images").mkdir(parents=True)
    (layout.data / "images" / "pair.png").write_bytes(image.getvalue())
    counts: dict[str, dict[str, object]] = {}
    for split, count in study.data.splits.items():
        rows = [_row(split, number) for number in range(count or 0)]
        write_rows(layout.split(split), rows)
        counts[split] = {"rows": len(rows), "refused": REFUSED, "rejected": REJECTED}
        if split != "sft":
            counts[split] = {"rows": len(rows), "refused": {}}
    layout.data_manifest.write_text(json.dumps({"id": "d" * 8, "splits": counts, "sha256": {}}))
    return [_row("test", number) for number in range(study.data.splits["test"] or 0)]


def _row(split: str, number: int) -> PromptRow:
    return PromptRow(
        prompt_id=hashlib.sha256(f"{split}{number}".encode()).hexdigest()[:16],
        question=f"Which digit is on the left? ({number})",
        answer="ABCD"[number % 4],
        choices=("1", "3", "5", "7"),
        media=(Media(path="images/pair.png"),),
    )


def _write_evaluation(layout: Layout, policy: str, row_name: str, rows: list[PromptRow], size: Size) -> None:
    rng = _rng(policy)
    seed_effect = 0.0 if row_name in ("untrained", "sft") else rng.normal(0, 0.01)
    completions, scores = [], []
    for number, row in enumerate(rows):
        difficulty = 0.25 * np.sin(number)
        chance = np.clip(size.accuracy[row_name] + difficulty + seed_effect, 0.01, 0.99)
        for mode, samples in (("sampled", size.samples), ("greedy", 1)):
            for sample in range(samples):
                completion, values = _completion(row, mode, sample, (chance, FORMAT.get(row_name, 0.9)), rng)
                completions.append(completion)
                scores += [(row.prompt_id, mode, sample, metric, value) for metric, value in values.items()]
    write_rows(layout.completions(policy, "test"), completions)
    frame = pd.DataFrame(scores, columns=["prompt_id", "mode", "sample", "metric", "value"])
    frame.to_parquet(layout.scores(policy, "test"), index=False)


def _completion(
    row: PromptRow, mode: str, sample: int, chances: tuple[float, float], rng: np.random.Generator
) -> tuple[CompletionRow, dict[str, float]]:
    parsed, thinks = rng.random() < 0.95, rng.random() < chances[1]
    correct = parsed and rng.random() < chances[0]
    finished = rng.random() < 0.98
    letter = row.answer if correct else "ABCD"[("ABCD".index(row.answer) + 1) % 4]
    answer = f"<answer>{letter}</answer>" if parsed else HOSTILE
    text = f"<think>I see two digits</think>{answer}" if thinks else answer
    tokens = int(rng.integers(6, 16)) if finished else 16
    values = {
        "choice_accuracy": float(correct),
        "think_answer_format": float(thinks and parsed),
        "soft_overlong": min(0.0, (12 - tokens) / 4),
        "choice_accuracy_lenient": float(correct or (not parsed and rng.random() < 0.2)),
        "parse_failure": float(not parsed),
        "parse_failure_lenient": float(not parsed and rng.random() < 0.5),
        "token_count": float(tokens),
        "truncated": float(not finished),
    }
    completion = CompletionRow(
        prompt_id=row.prompt_id, mode=mode, sample=sample, text=text, token_count=tokens, finished=finished
    )
    return completion, values


def _write_manifest(layout: Layout, policy: str, fingerprint: str, steps: int, stage: str = "rl") -> None:
    content = {
        "fingerprint": fingerprint,
        "steps": steps,
        "max_steps": steps,
        "weights": "state/weights",
        "sha256": {"model.safetensors": hashlib.sha256(policy.encode()).hexdigest()},
        "seconds": 12.5,
        "generated_tokens": 1000 * steps,
        "resumes": [],
        "gpus": 0,
        "versions": VERSIONS,
        "peak_memory_mb": 512.0,
    }
    manifest = layout.train_manifest(policy, stage)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps(content))


def _write_training(layout: Layout, policy: str, study: Study, arm: str, size: Size) -> None:
    rng = _rng(f"training {policy}")
    weights = {reward: section.weight for reward, section in study.arms[arm].recipe.rewards.items()}
    layout.rollouts(policy).mkdir(parents=True)
    with layout.metrics(policy).open("w") as metrics:
        for step in range(1, size.steps + 1):
            rollout = _rollout(step, weights, (size.accuracy[arm], FORMAT.get(arm, 0.9)), size, rng)
            rollout.to_parquet(layout.rollouts(policy) / f"step{step:06d}.parquet", index=False)
            metrics.write(json.dumps(_metrics(step, rollout, list(weights), rng)) + "\n")


def _rollout(
    step: int, weights: dict[str, float], goal: tuple[float, float], size: Size, rng: np.random.Generator
) -> pd.DataFrame:
    count, progress = size.prompts_per_step * size.generations, min(1.0, step / (0.5 * size.steps))
    tokens = rng.integers(6, 17, count)
    raw = {
        "choice_accuracy": rng.random(count) < 0.35 + (goal[0] - 0.35) * progress,
        "think_answer_format": rng.random(count) < 0.6 + (goal[1] - 0.6) * progress,
        "soft_overlong": np.minimum(0.0, (12 - tokens) / 4),
    }
    frame = pd.DataFrame(
        {"step": step, "prompt_id": np.repeat([f"p{n}" for n in range(size.prompts_per_step)], size.generations)}
    )
    frame["sample"] = np.tile(np.arange(size.generations), size.prompts_per_step)
    frame["completion"] = "<think>I see</think><answer>A</answer>"
    frame["token_count"], frame["finished"] = tokens, tokens < 16
    frame["advantage"] = rng.normal(size=count)
    for reward, weight in weights.items():
        frame[f"raw.{reward}"] = raw[reward].astype(float)
        frame[f"weighted.{reward}"] = weight * frame[f"raw.{reward}"]
        frame[f"failed.{reward}"] = np.where((np.arange(count) == 0) & (reward == "soft_overlong"), "timeout", None)
    frame["reward"] = frame[[f"weighted.{reward}" for reward in weights]].sum(axis=1)
    return frame


def _metrics(step: int, rollout: pd.DataFrame, rewards: list[str], rng: np.random.Generator) -> dict[str, object]:
    line: dict[str, object] = {"step": step, "time": 1.7e9 + step + rng.random(), "learning_rate": 2e-4}
    line |= {"loss": rng.normal(0, 0.01), "grad_norm": None if step == 1 else 1.0, "entropy": 1.0 - 0.02 * step}
    line |= {"reward": float(rollout["reward"].mean()), "reward_std": 0.4, "frac_reward_zero_std": 0.1}
    line |= {"completions/mean_length": float(rollout["token_count"].mean())}
    line |= {"completions/clipped_ratio": float((~rollout["finished"]).mean())}
    line |= {f"rewards/{name}/mean": float(rollout[f"raw.{name}"].mean()) for name in rewards}
    line |= {f"rewards/{name}/frac_zero_std": 0.9 if "format" in name else 0.25 for name in rewards}
    line |= {f"rewards/{name}/correlation/length": 0.1 * place - 0.125 for place, name in enumerate(rewards)}
    return line | {
        "time/step": 0.9 + 0.1 * rng.random(),
        "time/generation": 0.5,
        "time/reward": 0.01,
        "num_tokens": 900 * step,
    }
