"""The stage `generate`: one policy answers every prompt of one evaluation set.

Steps: rows -> batches (`plan_batches`) -> prompts and completions (`Answerer`, `decode_batch`) -> a working file
(`WorkFile`), which survives kills -> `<split>.completions.jsonl`. `decode_batch` is the one function that another
engine would replace.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
import torch
from transformers import GenerationConfig, ProcessorMixin

from rlassay import ranks
from rlassay.bar import progress_bar
from rlassay.config.credit import AttentionSignal
from rlassay.config.fingerprints import code_digest, evaluation_id, reads_signals
from rlassay.config.policies import Policy
from rlassay.config.study import Beams, Evaluation, Study
from rlassay.images import StudyImages
from rlassay.layout import Layout
from rlassay.models import seq2seq
from rlassay.models.hub import Model, Processor
from rlassay.models.policy import (
    ChatFormat,
    build_policy,
    chat_format,
    end_token_ids,
    load_policy,
    on_device,
    tokenizer_of,
    training_rows,
)
from rlassay.models.seq2seq import is_encoder_decoder
from rlassay.models.video_input import images_and_clips, video_options
from rlassay.records import CompletionRow, Mode, PromptRow, read_rows, write_rows
from rlassay.signals.measuring import RolloutBatch, SignalComputer, SignalPlan, completion_signals
from rlassay.signals.scoring import ScoringConfig
from rlassay.signals.segments import vision_token_ids


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Completions that are decoded together."""

    number: int
    """0-based index among all batches; it seeds the sampling."""
    mode: Mode
    """How they are decoded."""
    items: tuple[tuple[PromptRow, int], ...]
    """Each completion's prompt, and its index among that prompt's completions of this mode."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How to decode a batch."""

    sampled: bool
    """Whether to sample; False takes the likeliest token each time."""
    temperature: float
    """Temperature of the sampled distribution."""
    top_p: float
    """Nucleus of the sampled distribution."""
    max_completion_length: int
    """Longest completion, tokens."""
    seed: int
    """Seed of the sampling."""
    beams: Beams | None = None
    """Beam search in place of the likeliest token each time; None does not search."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One completion."""

    ids: list[int]
    """Its tokens, the end-of-sequence token included."""
    text: str
    """Without special tokens."""
    finished: bool
    """Whether it ended by itself."""


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
        # By number, since another process may have finished batches of its own before this one reads its file.
        own = batches[ranks.rank() :: ranks.world_size()]
        waiting = [batch for batch in own if batch.number not in work.done]
        if waiting:
            model, processor = _open_policy(layout, policy)
            answerer = Answerer(
                model=on_device(model, f"cuda:{ranks.local_rank()}" if study.gpus else "cpu"),
                processor=processor,
                images=StudyImages(layout.data),
                evaluation=study.evaluation,
                seed=policy.seed or 0,
                chat_format=chat_format(processor, policy.recipe),
                attention=policy.recipe.signals.attention if reads_signals(study) else None,
            )
            for batch in _with_bar(waiting, f"generate {policy.folder} {split}"):
                work.add(batch.number, answerer.answer(batch))
    _wait_for_all()
    if ranks.is_main():
        done = work.done | work.of_all()
        write_rows(target, (row for batch in batches for row in done[batch.number]))
        for file in work.files():
            file.unlink()


def _wait_for_all() -> None:
    """Wait until every process that shares the job has answered its batches."""
    if ranks.world_size() > 1:
        group: Any = torch.distributed
        group.init_process_group("gloo", timeout=ranks.LONGEST_WAIT)
        group.barrier()
        group.destroy_process_group()


def _with_bar(batches: list[Batch], title: str) -> Iterator[Batch]:
    with progress_bar(title, sum(len(batch.items) for batch in batches), "completion") as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch.items))


def _open_policy(layout: Layout, policy: Policy) -> tuple[Model, Processor]:
    if policy.stage == "model":
        return build_policy(policy.recipe.model, training_rows(layout))
    manifest = layout.train_manifest(policy.folder, policy.stage)
    if not manifest.exists():
        raise ValueError(f"{policy.folder} is not trained yet: there is no {manifest}")
    weights = json.loads(manifest.read_bytes())["weights"]
    return load_policy(policy.recipe.model, layout.root / policy.folder / weights)


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

    model: Model
    """The policy."""
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

    def answer(self, batch: Batch) -> list[CompletionRow]:
        """The completions of a batch, in its order."""
        rows = [row for row, _ in batch.items]
        chats = [self.chat_format.prompt(row) for row in rows]
        images = [
            [*self.images(self.chat_format.images(row)), *self.chat_format.video_clips(row, self.images)]
            for row in rows
        ]
        decoded = decode_batch(self.model, self.processor, chats, images, self._decoding(batch))
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
        if self.attention is None:
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
            max_completion_length=self.evaluation.max_completion_length,
            seed=int(seeds.generate_state(1)[0]),
            beams=self.evaluation.beams if batch.mode == "beams" else None,
        )


def decode_batch(
    model: Model,
    processor: Processor,
    conversations: Sequence[Any],
    images: Sequence[list[Any]],
    how: Decoding,
) -> list[Decoded]:
    """One completion per conversation, determined by the arguments alone.

    Args:
        conversations: chat messages of each prompt.
        images: PIL images of each prompt in their order, then its clips; empty lists for text.
    """
    config = _generation_config(model, processor, how)
    cast(Any, torch).manual_seed(how.seed)
    if is_encoder_decoder(model):
        ids, mask = _documents(model, processor, conversations)
        with torch.inference_mode():
            completions = seq2seq.generate(model, ids, mask, config, own_defaults=how.beams is not None)
        return _decoded(completions, processor, end_token_ids(model, processor))
    inputs = _inputs(processor, conversations, images).to(model.device)
    with torch.inference_mode():
        sequences = cast(Any, model).generate(**inputs, generation_config=config)
    return _decoded(sequences[:, inputs["input_ids"].shape[1] :], processor, end_token_ids(model, processor))


def _documents(model: Model, processor: Any, conversations: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of what the encoder reads, (batch, keys), padded on the right."""
    texts = [processor.apply_chat_template(each, tokenize=False, add_generation_prompt=True) for each in conversations]
    ids = seq2seq.document_ids(model, processor, texts)
    padded = processor.pad({"input_ids": ids}, return_tensors="pt").to(model.device)
    return padded["input_ids"], padded["attention_mask"]


def _inputs(processor: Processor, conversations: Sequence[Any], images: Sequence[list[Any]]) -> Any:
    template: Any = processor
    texts = [template.apply_chat_template(each, tokenize=False, add_generation_prompt=True) for each in conversations]
    # The template has already written the begin-of-sequence token where there is one.
    options: dict[str, Any] = {"padding": True, "return_tensors": "pt", "add_special_tokens": False}
    if not isinstance(processor, ProcessorMixin):
        return template(texts, **options)
    pictures, clips = zip(*(images_and_clips(each) for each in images), strict=True)
    options |= video_options([clip for of_prompt in clips for clip in of_prompt])
    return template(text=texts, images=list(pictures) if any(pictures) else None, **options)


def _generation_config(model: Model, processor: Processor, how: Decoding) -> GenerationConfig:
    # Every choice is spelled out: transformers fills in any other from the model's own file, such as top_k=20.
    temperature, top_p, top_k = (how.temperature, how.top_p, 0) if how.sampled else (1.0, 1.0, 50)
    media = vision_token_ids(model.config) if isinstance(processor, ProcessorMixin) else None
    search: dict[str, Any] = {"num_beams": 1, "no_repeat_ngram_size": 0}
    if how.beams is not None:
        search = how.beams.model_dump(exclude_none=True)
    return GenerationConfig(
        max_new_tokens=how.max_completion_length,
        do_sample=how.sampled,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=1.0,
        **search,
        eos_token_id=end_token_ids(model, processor),
        pad_token_id=tokenizer_of(processor).pad_token_id,
        suppress_tokens=media,  # a sampled image or video token would have no pixels
        disable_compile=True,
    )


def _decoded(completion_ids: torch.Tensor, processor: Processor, eos_token_ids: list[int]) -> list[Decoded]:
    """Cut each row of `(batch, time)` after its first end-of-sequence token and decode it."""
    is_eos = torch.isin(completion_ids, torch.tensor(eos_token_ids, device=completion_ids.device))
    finished = is_eos.any(dim=1)
    counts = torch.where(finished, is_eos.int().argmax(dim=1) + 1, completion_ids.shape[1])
    columns: Any = (completion_ids, counts, finished)
    sampled, lengths, ended = (column.tolist() for column in columns)
    rows: list[list[int]] = [ids[:count] for ids, count in zip(sampled, lengths, strict=True)]
    texts: list[str] = cast(Any, tokenizer_of(processor)).batch_decode(rows, skip_special_tokens=True)
    return [
        Decoded(ids=ids, text=text, finished=by_itself) for text, ids, by_itself in zip(texts, rows, ended, strict=True)
    ]


class WorkFile:
    """One line per finished batch: `{"key", "batch", "rows"}`. Lines that are torn or have another key do not count.

    Processes that share the job write a file each, and read the files of all.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.shared = path
        """The file of the main process; the other processes' lie beside it."""
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
    if policy.stage != "model" and (manifest := layout.train_manifest(policy.folder, policy.stage)).exists():
        files.append(manifest)
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return hashlib.sha256(json.dumps(parts + contents).encode()).hexdigest()
