"""The stage that lets one policy answer every prompt of one evaluation set."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from rlassay.bar import progress_bar
from rlassay.config.credit import AttentionSignal
from rlassay.config.fingerprints import code_digest, evaluation_id, reads_signals
from rlassay.config.policies import Policy
from rlassay.config.study import Evaluation, Study
from rlassay.evaluation.decode import Decoding, decode_batch
from rlassay.evaluation.workfile import WorkFile
from rlassay.layout import Layout
from rlassay.models import build_policy, load_policy, on_device, training_rows
from rlassay.models.chat import chat, is_told
from rlassay.models.hub import Model, Processor
from rlassay.records import CompletionRow, PromptRow, read_rows, write_rows
from rlassay.signals.measuring import Measurer, Sampled, SignalPlan
from rlassay.signals.readings import completion_signals
from rlassay.signals.scoring import How


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Completions that are decoded together."""

    number: int
    """0-based position in the whole; it seeds the sampling."""
    mode: Literal["sampled", "greedy"]
    """How they are decoded."""
    items: tuple[tuple[PromptRow, int], ...]
    """Each completion's prompt, and its index among that prompt's completions of this mode."""


def run_generate(study: Study, layout: Layout, policy: Policy, split: str) -> None:
    """Write `<policy>/eval/<split>.completions.jsonl`: `num_samples` sampled completions per prompt and a greedy one.

    Finished batches outlive a kill in a working file beside it, and a batch depends on its own seed alone, so that a
    continued job gives the same file as an uninterrupted one.

    Errors: ValueError for a policy that is not trained yet, or whose weights are damaged.
    """
    rows = list(read_rows(layout.split(split)))
    batches = plan_batches(rows, study.evaluation)
    target = layout.completions(policy.folder, split)
    with WorkFile(target.with_name(f".{split}.partial.jsonl"), _key(study, layout, policy, split)) as work:
        waiting = [batch for batch in batches if batch.number not in work.done]
        if waiting:
            model, processor = _open_policy(layout, policy)
            answerer = Answerer(
                model=on_device(model, "cuda" if study.gpus else "cpu"),
                processor=processor,
                data=layout.data,
                evaluation=study.evaluation,
                seed=policy.seed or 0,
                told=is_told(policy.recipe),
                attention=policy.recipe.signals.attention if reads_signals(study) else None,
            )
            for batch in _with_bar(waiting, f"generate {policy.folder} {split}"):
                work.add(batch.number, answerer.answer(batch))
        write_rows(target, (row for batch in batches for row in work.done[batch.number]))
    work.path.unlink()


def plan_batches(rows: list[PromptRow], evaluation: Evaluation) -> list[Batch]:
    """All completions in batches of `batch_size`: the sampled ones prompt by prompt, then the greedy ones."""
    wanted: dict[Literal["sampled", "greedy"], int] = {
        "sampled": evaluation.num_samples,
        "greedy": int(evaluation.greedy),
    }
    batches: list[Batch] = []
    for mode, per_prompt in wanted.items():
        items = [(row, sample) for row in rows for sample in range(per_prompt)]
        for start in range(0, len(items), evaluation.batch_size):
            chosen = tuple(items[start : start + evaluation.batch_size])
            batches.append(Batch(number=len(batches), mode=mode, items=chosen))
    return batches


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """A policy that answers batches."""

    model: Model
    """The policy."""
    processor: Processor
    """What prepares its inputs."""
    data: Path
    """Folder that image paths start from."""
    evaluation: Evaluation
    """How to decode."""
    seed: int
    """The run's seed."""
    told: bool
    """Whether a system turn states the completion format."""
    attention: AttentionSignal | None
    """How attention is measured; None where no reward reads it."""

    def answer(self, batch: Batch) -> list[CompletionRow]:
        """The completions of a batch, in its order."""
        rows = [row for row, _ in batch.items]
        chats = [chat(row, self.processor, self.told) for row in rows]
        images = [[_image(self.data / item.path) for item in row.media] for row in rows]
        decoded = decode_batch(self.model, self.processor, chats, images, self._decoding(batch))
        signals = self._signals(batch, chats, images, [each.ids for each in decoded])
        return [
            CompletionRow(
                prompt_id=row.prompt_id,
                mode=batch.mode,
                sample=sample,
                text=each.text,
                token_count=len(each.ids),
                finished=each.finished,
                signals=of_completion,
            )
            for (row, sample), each, of_completion in zip(batch.items, decoded, signals, strict=True)
        ]

    def _signals(
        self, batch: Batch, chats: list[Any], images: list[list[Any]], ids: list[list[int]]
    ) -> list[dict[str, float]]:
        """What rewards read of each completion: the attention of the policy while it wrote it."""
        if self.attention is None:
            return [{} for _ in ids]
        plan = SignalPlan(attention=True, layers=self.attention.layers)
        how = How(temperature=self.evaluation.temperature, batch_size=self.evaluation.batch_size)
        sampled = Sampled(
            prompts=chats,
            images=images,
            completion_ids=ids,
            prompt_ids=[row.prompt_id for row, _ in batch.items],
            samples=[sample for _, sample in batch.items],
            step=0,
        )
        measured = Measurer(self.processor, plan, frozenset(), how, self.seed)(self.model, sampled)
        readings = {} if measured.attention is None else measured.attention.per_completion
        found = completion_signals(readings) or [{} for _ in ids]
        return [{name: value for name, value in each.items() if isfinite(value)} for each in found]

    def _decoding(self, batch: Batch) -> Decoding:
        seeds = np.random.SeedSequence([self.evaluation.seed, self.seed, batch.number])
        return Decoding(
            sampled=batch.mode == "sampled",
            temperature=self.evaluation.temperature,
            top_p=self.evaluation.top_p,
            max_completion_length=self.evaluation.max_completion_length,
            seed=int(seeds.generate_state(1)[0]),
        )


@lru_cache(maxsize=64)
def _image(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _open_policy(layout: Layout, policy: Policy) -> tuple[Model, Processor]:
    if policy.stage == "model":
        return build_policy(policy.recipe.model, training_rows(layout))
    sentinel = layout.train_sentinel(policy.folder)
    if not sentinel.exists():
        raise ValueError(f"{policy.folder} is not trained yet: there is no {sentinel}")
    weights = json.loads(sentinel.read_bytes())["weights"]
    return load_policy(policy.recipe.model, layout.root / policy.folder / weights)


def _key(study: Study, layout: Layout, policy: Policy, split: str) -> str:
    """Identifies what a working file holds: one left by other weights, rows, settings or code is not continued."""
    sentinel = layout.train_sentinel(policy.folder)
    asked = evaluation_id(study, policy.recipe)
    parts = [policy.folder, policy.fingerprint, asked, code_digest("rlassay.evaluation.generate")]
    files = [layout.split(split)] + [sentinel] * sentinel.exists()
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return hashlib.sha256(json.dumps(parts + contents).encode()).hexdigest()


def _with_bar(batches: list[Batch], title: str) -> Iterator[Batch]:
    with progress_bar(title, sum(len(batch.items) for batch in batches), "completion") as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch.items))
