"""The stage `generate`: one policy answers every prompt of one evaluation set.

Steps: rows -> batches (`plan_batches`) -> prompts and completions (`Answerer`) -> a working file
(`WorkFile`), which survives kills -> `<split>.completions.jsonl`. An engine, of transformers or of vLLM, decodes.
"""

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import numpy as np
import torch

from rlassay import ranks
from rlassay.bar import progress_bar
from rlassay.config.credit import AttentionSignal
from rlassay.config.engine import Evaluation
from rlassay.config.fingerprints import code_digest, evaluation_id, package_version, reads_signals
from rlassay.config.policies import Policy
from rlassay.config.study import Study
from rlassay.evaluation.by_transformers import decode_batch
from rlassay.evaluation.by_vllm import VLLMDecoder
from rlassay.evaluation.decoding import Decoding, Engine
from rlassay.files import write_json
from rlassay.images import StudyImages
from rlassay.layout import Layout
from rlassay.models.hub import Model, Processor
from rlassay.models.policy import (
    ChatFormat,
    adapter_folder,
    build_policy,
    chat_format,
    load_policy,
    on_device,
    training_rows,
)
from rlassay.models.prompt_length import prompt_lengths, require_room
from rlassay.records import CompletionRow, Mode, PromptRow, read_rows, write_rows
from rlassay.signals.measuring import RolloutBatch, SignalComputer, SignalPlan, completion_signals
from rlassay.signals.scoring import ScoringConfig


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Completions that are decoded together."""

    number: int
    """0-based index among all batches; it seeds the sampling."""
    mode: Mode
    """How they are decoded."""
    items: tuple[tuple[PromptRow, int], ...]
    """Each completion's prompt, and its index among that prompt's completions of this mode."""


def run_generate(study: Study, layout: Layout, policy: Policy, split: str) -> None:
    """Write `<policy>/eval/<split>.completions.jsonl`: the completions of each prompt in every mode of the evaluation.

    Finished batches survive a kill in a working file next to it, and a batch depends on its own seed alone, so that a
    resumed job gives the same file as an uninterrupted one.

    Errors: ValueError for a policy that is not trained yet, or whose weights are damaged.
    """
    rows = list(read_rows(layout.split(split)))
    batches = plan_batches(rows, study.evaluation)
    target = layout.completions(policy.folder, split)
    part = layout.completions_part(policy.folder, split)
    with WorkFile(part, _key(study, layout, policy, split)) as work:
        answer_share(work, batches, answering(study, layout, policy), f"generate {policy.folder} {split}")
    wait_for_all_answers()
    if ranks.is_main():
        done = work.done | work.of_all()
        write_json(layout.sampler(policy.folder, split), sampler_facts(study.evaluation))
        write_rows(target, (row for batch in batches for row in done[batch.number]))
        for file in work.files():
            file.unlink()


def sampler_facts(evaluation: Evaluation) -> dict[str, Any]:
    """The engine that samples, and the versions of its libraries here."""
    libraries = ("torch", "transformers", *(("vllm",) if evaluation.engine.kind == "vllm" else ()))
    return {"engine": evaluation.engine.kind, "versions": {name: package_version(name) for name in libraries}}


@contextmanager
def answering(
    study: Study, layout: Layout, policy: Policy, weights: Path | None = None
) -> Generator["Answerer", None, None]:
    """The policy in the study's engine; with vLLM, transformers keeps a copy only to measure attention.

    `weights` is a folder to open in place of the policy's own result.
    """
    weights = weights or _weights(layout, policy)
    attention = policy.recipe.signals.attention if reads_signals(study) else None
    model, processor = _open_policy(layout, policy, weights)
    with _engine(study, policy, model, processor, weights) as decode:
        yield Answerer(
            decode=decode,
            model=None if attention is None else on_device(model, _device(study)),
            processor=processor,
            images=StudyImages(layout.data),
            evaluation=study.evaluation,
            seed=policy.seed or 0,
            chat_format=chat_format(processor, policy.recipe),
            attention=attention,
            limit=decode.limit if isinstance(decode, VLLMDecoder) else None,
        )


@contextmanager
def _engine(
    study: Study, policy: Policy, model: Model, processor: Processor, weights: Path | None
) -> Generator[Engine, None, None]:
    """The study's engine; vLLM is closed at the end, to free its memory for the job's next weights."""
    chosen = study.evaluation.engine
    if chosen.kind != "vllm":
        yield partial(decode_batch, on_device(model, _device(study)), processor)
        return
    with TemporaryDirectory() as copy:
        decoder = VLLMDecoder(
            model,
            processor,
            section=policy.recipe.model,
            weights=weights,
            copy=Path(copy),
            engine=chosen,
            batch_size=study.evaluation.batch_size,
            on_cpu=study.gpus == 0,
        )
        try:
            yield decoder
        finally:
            decoder.close()


def _device(study: Study) -> str:
    return f"cuda:{ranks.local_rank()}" if study.gpus else "cpu"


def wait_for_all_answers() -> None:
    """Wait until every process that shares the job has answered its batches."""
    if ranks.world_size() > 1:
        group: Any = torch.distributed
        with ranks.PROGRESS.watched():
            group.init_process_group("gloo", timeout=ranks.LONGEST_WAIT)
            group.barrier()
            group.destroy_process_group()


def answer_share(
    work: "WorkFile", batches: list[Batch], policy: AbstractContextManager["Answerer"], title: str, *, first: int = 0
) -> None:
    """Answer this process's share of the missing batches; opens the policy only if there are any.

    `first` is added to the number under which the working file holds a batch.
    """
    # By number, since another process may have finished batches of its own before this one reads its file.
    own = batches[ranks.rank() :: ranks.world_size()]
    waiting = [batch for batch in own if first + batch.number not in work.done]
    if waiting:
        with policy as answerer, ranks.PROGRESS.watched():
            answerer.require_room(waiting)
            for batch in _with_bar(waiting, title):
                work.add(first + batch.number, answerer.answer(batch))
                ranks.PROGRESS.finish_step()


def _with_bar(batches: list[Batch], title: str) -> Iterator[Batch]:
    """The batches one by one, with a progress bar over their completions."""
    with progress_bar(title, sum(len(batch.items) for batch in batches), "completion") as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch.items))


def _open_policy(layout: Layout, policy: Policy, weights: Path | None) -> tuple[Model, Processor]:
    if weights is None:
        return build_policy(policy.recipe.model, training_rows(layout))
    return load_policy(policy.recipe.model, weights)


def _weights(layout: Layout, policy: Policy) -> Path | None:
    """The folder of the weights or adapter that training wrote, or of a reference's adapter; None for other models."""
    if not policy.is_trained:
        return adapter_folder(policy.recipe.model)
    manifest = layout.train_manifest(policy.folder, policy.stage)
    if not manifest.exists():
        raise ValueError(f"{policy.folder} is not trained yet: there is no {manifest}")
    return layout.root / policy.folder / json.loads(manifest.read_bytes())["weights"]


def plan_batches(rows: list[PromptRow], evaluation: Evaluation) -> list[Batch]:
    """All completions in batches of `batch_size`: the sampled ones prompt by prompt, then the others."""
    batches: list[Batch] = []
    for mode, per_prompt in evaluation.modes.items():
        items = [(row, sample) for row in rows for sample in range(per_prompt)]
        for start in range(0, len(items), evaluation.batch_size):
            chosen = tuple(items[start : start + evaluation.batch_size])
            batches.append(Batch(number=len(batches), mode=mode, items=chosen))
    return batches


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """A policy that answers batches."""

    decode: Engine
    """The policy in an engine."""
    model: Model | None
    """The policy, loaded by transformers, to measure its attention; None where no reward reads it."""
    processor: Processor
    """Prepares its inputs."""
    images: StudyImages
    """Opens the images of rows."""
    evaluation: Evaluation
    """How to decode."""
    seed: int
    """The run's seed."""
    chat_format: ChatFormat
    """Turns a row into the messages of the model's template."""
    attention: AttentionSignal | None
    """How attention is measured; None where no reward reads it."""
    limit: int | None = None
    """Most tokens of prompt and completion together; None leaves it to the model."""

    def require_room(self, batches: Sequence[Batch]) -> None:
        """Refuse batches of which any prompt leaves too little room for completions, see `prompt_length`."""
        if self.limit is None:
            return
        rows = list({row.prompt_id: row for batch in batches for row, _ in batch.items}.values())
        require_room(
            rows,
            prompt_lengths(rows, self.chat_format, self.images.data),
            self.limit,
            of="the evaluation",
            key="evaluation",
            max_completion_length=self.evaluation.max_completion_length,
        )

    def answer(self, batch: Batch) -> list[CompletionRow]:
        """The completions of a batch, in its order."""
        rows = [row for row, _ in batch.items]
        chats = [self.chat_format.prompt(row) for row in rows]
        images = [
            [*self.images(self.chat_format.images(row)), *self.chat_format.video_clips(row, self.images)]
            for row in rows
        ]
        decoded = self.decode(chats, images, self._decoding(batch))
        signals = self._signals(batch, chats, images, [each.ids for each in decoded])
        return [
            CompletionRow(
                prompt_id=row.prompt_id,
                mode=batch.mode,
                sample=sample,
                text=self.chat_format.prefilled + each.text,
                token_count=len(each.ids),
                finished=each.finished,
                signals=of_completion,
            )
            for (row, sample), each, of_completion in zip(batch.items, decoded, signals, strict=True)
        ]

    def _signals(
        self, batch: Batch, chats: list[Any], images: list[list[Any]], ids: list[list[int]]
    ) -> list[dict[str, float]]:
        """Signals that rewards read, per completion: the policy's attention while it wrote the completion."""
        if self.attention is None or self.model is None:
            return [{} for _ in ids]
        plan = SignalPlan(attention=True, layers=self.attention.layers)
        how = ScoringConfig(temperature=self.evaluation.temperature, batch_size=self.evaluation.batch_size)
        sampled = RolloutBatch(
            prompts=chats,
            images=images,
            completion_ids=ids,
            prompt_ids=[row.prompt_id for row, _ in batch.items],
            samples=[sample for _, sample in batch.items],
            step=0,
        )
        measured = SignalComputer(self.processor, plan, frozenset(), how, self.seed)(self.model, sampled)
        return completion_signals(measured)

    def _decoding(self, batch: Batch) -> Decoding:
        seeds = np.random.SeedSequence([self.evaluation.seed, self.seed, batch.number])
        return Decoding(
            sampled=batch.mode == "sampled",
            temperature=self.evaluation.temperature,
            top_p=self.evaluation.top_p,
            top_k=self.evaluation.top_k,
            min_p=self.evaluation.min_p,
            max_completion_length=self.evaluation.max_completion_length,
            seed=int(seeds.generate_state(1)[0]),
            beams=self.evaluation.beams if batch.mode == "beams" else None,
        )


class WorkFile:
    """One line per finished batch, `{"key", "batch", "rows"}`; lines that are torn or have another key do not count.

    Processes that share the job write a file each, and read the files of all.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.shared = path
        """The file of the main process; those of the other processes are beside it."""
        self.path = path if ranks.is_main() else path.with_name(f"{path.name}.rank{ranks.rank()}")
        self.done: dict[int, list[CompletionRow]] = {}
        """Finished batches by number."""
        self._key = key

    def __enter__(self) -> "WorkFile":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.done |= self.of_all()
        self._out = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.close()

    def add(self, batch: int, rows: list[CompletionRow]) -> None:
        """Store a finished batch."""
        self.done[batch] = rows
        line = json.dumps({"key": self._key, "batch": batch, "rows": [row.model_dump(mode="json") for row in rows]})
        # The newline comes first as well, so that a torn line before this one does not spoil it.
        self._out.write(f"\n{line}\n")
        self._out.flush()

    def files(self) -> list[Path]:
        """The files of all processes, of an earlier attempt with more of them too."""
        return sorted(self.shared.parent.glob(f"{self.shared.name}*"))

    def of_all(self) -> dict[int, list[CompletionRow]]:
        """The finished batches of all files, by number."""
        done: dict[int, list[CompletionRow]] = {}
        for file in self.files():
            self._read(file, done)
        return done

    def _read(self, file: Path, done: dict[int, list[CompletionRow]]) -> None:
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                content = json.loads(line)
                if content["key"] == self._key:
                    rows = [CompletionRow.model_validate(row) for row in content["rows"]]
                    done[content["batch"]] = rows
            except (ValueError, KeyError, TypeError):  # pydantic raises ValueError
                continue


def _key(study: Study, layout: Layout, policy: Policy, split: str) -> str:
    """Key of a working file's weights, rows, settings and code; a job continues no file with another key."""
    asked = evaluation_id(study, policy.recipe)
    parts = [policy.folder, policy.fingerprint, asked, code_digest("rlassay.evaluation.generate")]
    files = [layout.split(split)]
    if policy.is_trained and (manifest := layout.train_manifest(policy.folder, policy.stage)).exists():
        files.append(manifest)
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return hashlib.sha256(json.dumps(parts + contents).encode()).hexdigest()
