"""Load a policy and its processor, before training or with trained weights; chat format of its prompts.

`ChatFormat` turns a row into the messages that a model's chat template takes. The warm start, RL and evaluation all get
theirs from `chat_format`, so that the policy sees the same prompt in each.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import logging

from rlassay.config.explain import StudyError
from rlassay.config.model import ClipView, HubModel, ModelConfig, TinyLM, TinySeq2Seq, TinyVLM, Tune
from rlassay.config.training import Recipe
from rlassay.images import Clip, StudyImages, frame_path
from rlassay.layout import Layout
from rlassay.models.hub import Model, Processor, load_pretrained
from rlassay.models.seq2seq import check_seq2seq, is_encoder_decoder, reads_documents
from rlassay.models.tiny import TAGS, build_tiny_lm, build_tiny_seq2seq, build_tiny_vlm
from rlassay.models.tuning import frozen_modules
from rlassay.models.video_input import clip_problem
from rlassay.prompts import demonstrate, instruction, messages, shown_frames
from rlassay.records import TRAINING_SPLITS, Media, PromptRow, read_rows

if TYPE_CHECKING:
    from peft import LoraConfig


def training_rows(layout: Layout) -> list[PromptRow]:
    """The rows of the study's training splits, `sft` before `train`, for `build_policy`."""
    paths = [layout.split(name) for name in TRAINING_SPLITS]
    return [row for path in paths if path.exists() for row in read_rows(path)]


def build_policy(config: ModelConfig, rows: Sequence[PromptRow]) -> tuple[Model, Processor]:
    """The model before any training, and its processor.

    Args:
        config: the study's model section. The result depends on it and on `rows`, not on the global RNG.
        rows: training rows; a tiny model learns its vocabulary from them, and every model is checked against them.

    Errors: StudyError if the model cannot be loaded, has no chat template, or reads text only while rows have images;
    ValueError if a tiny model's sizes do not fit each other.
    """
    model, processor = _before_training(config, rows)
    num_with_images = sum(bool(row.media) for row in rows)
    if num_with_images and not isinstance(processor, ProcessorMixin):
        key, name = ("name", config.name) if isinstance(config, HubModel) else ("kind", config.kind)
        problem = f"{num_with_images} of {len(rows)} rows show images, but {name!r} reads text only"
        raise StudyError([f"model.{key}: {problem}; choose an image-text-to-text model"])
    if isinstance(config, HubModel) and (problem := clip_problem(config, processor)) is not None:
        raise StudyError([problem])
    return model, processor


def adapter_folder(config: ModelConfig) -> Path | None:
    """The folder that a model section names, if it holds an adapter, which `load_policy` opens; None otherwise."""
    folder = Path(config.name) if isinstance(config, HubModel) else None
    return folder if folder is not None and (folder / "adapter_config.json").is_file() else None


def _before_training(config: ModelConfig, rows: Sequence[PromptRow]) -> tuple[Model, Processor]:
    texts = (text for row in rows for text in _texts(row))
    if isinstance(config, TinyVLM):
        return build_tiny_vlm(config, texts)
    if isinstance(config, TinyLM):
        return build_tiny_lm(config, texts)
    if isinstance(config, TinySeq2Seq):
        return build_tiny_seq2seq(config, texts)
    try:
        model, processor = _load(config.name, config, revision=config.revision)
    except ValueError as error:
        raise StudyError([f"model.name: {error}"]) from error
    found = "seq2seq" if is_encoder_decoder(model) else "causal"
    if found != config.architecture:
        kind = "an encoder-decoder" if found == "seq2seq" else "no encoder-decoder"
        problem = f"got {config.architecture}, but {config.name!r} is {kind} ({model.config.model_type})"
        raise StudyError([f"model.architecture: {problem}; expected {found}, or another model"])
    return model, processor


def load_policy(config: ModelConfig, weights: Path, *, trainable: bool = False) -> tuple[Model, Processor]:
    """The policy saved by training: a full model, or a LoRA adapter with its base.

    Args:
        config: the study's model section.
        weights: folder with `config.json` (full weights) or `adapter_config.json` (an adapter, which names its base).
        trainable: whether an adapter can be trained further; full weights always can.

    Returns:
        model: in evaluation mode; a `peft.PeftModel` if `weights` holds an adapter.
        processor: as the training stage used it.

    Errors: ValueError naming the folder if it holds no weights, or if they are damaged or incomplete.
    """
    if (weights / "config.json").exists():
        return _load(str(weights), config)
    if not (weights / "adapter_config.json").exists():
        raise ValueError(f"{weights}: no policy here (neither config.json nor adapter_config.json); train it first")
    from peft import PeftModel  # seconds to import, and only adapters need it

    try:
        base = json.loads((weights / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
        revision = config.revision if isinstance(config, HubModel) and base == config.name else None
        model, processor = _load(base, config, revision=revision)
        return cast(Any, PeftModel).from_pretrained(model, str(weights), is_trainable=trainable).eval(), processor
    except (OSError, RuntimeError, SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{weights}: cannot load this adapter: {error}") from error


def peft_config(config: ModelConfig, tune: Tune | None = None, *, seq2seq: bool = False) -> "LoraConfig | None":
    """PEFT's configuration of the adapters to train, in the parts that `tune` names; None trains every weight."""
    if config.lora is None:
        return None
    from peft import LoraConfig

    targets = config.lora.target_modules
    return LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.lora_alpha,
        lora_dropout=config.lora.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=frozen_modules(tune),
        task_type="SEQ_2_SEQ_LM" if seq2seq else "CAUSAL_LM",
    )


def _load(source: str, config: ModelConfig, revision: str | None = None) -> tuple[Model, Processor]:
    logging.disable_progress_bar()  # a bar over weight shards would break up the bar of the job
    if isinstance(config, HubModel):
        model, processor = load_pretrained(
            source,
            dtype=config.dtype,
            attn_implementation=config.attn_implementation,
            revision=revision,
            trust_remote_code=config.trust_remote_code,
            load_in_4bit=config.in_4bit,
        )
    else:
        model, processor = load_pretrained(source, dtype="float32", attn_implementation="sdpa")
    if not cast(Any, processor).chat_template:
        raise ValueError(f"the model {source!r} has no chat template; choose an instruction-tuned model")
    tokenizer = tokenizer_of(processor)
    if is_encoder_decoder(model):
        check_seq2seq(model, tokenizer)
        tokenizer.padding_side = "right"  # absolute positions of the encoder count from its first token
        return model.eval(), processor
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    for name in ("response_template", "response_schema"):
        if getattr(tokenizer, name, None) is not None:
            setattr(tokenizer, name, None)  # TRL would take the thoughts out of the completions that rewards see
    return model.eval(), processor


def on_device(model: Model, device: str) -> Model:
    """The model, moved to `cpu` or `cuda`."""
    module: Any = model
    return module.to(device)


def tokenizer_of(processor: Processor) -> PreTrainedTokenizerBase:
    """The tokenizer inside a processor, or the tokenizer itself."""
    return processor.tokenizer if isinstance(processor, ProcessorMixin) else processor


def end_token_ids(model: Model, processor: Processor, *, padding: bool = False) -> list[int]:
    """Ids that end a completion, ascending: those of the model's generation config, and the tokenizer's.

    Args:
        model: the policy.
        processor: its processor.
        padding: whether the padding id counts too. TRL counts a completion whose last id is padding as finished, so
            that training does; in evaluation a sampled padding token ends nothing.
    """
    tokenizer = tokenizer_of(processor)
    generation: Any = model.generation_config
    of_model: int | list[int] | None = generation.eos_token_id
    ends: list[Any] = [*(of_model if isinstance(of_model, list) else [of_model]), tokenizer.eos_token_id]
    if padding:
        ends.append(tokenizer.pad_token_id)
    return sorted({each for each in ends if each is not None})


def _texts(row: PromptRow) -> list[str]:
    parts = [part for message in messages(row) for part in message["content"]]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    return texts if row.demonstration is None else [*texts, row.demonstration]


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """Turns rows into the chat messages that one model's template takes."""

    processor: Processor
    """A processor's template takes turns of parts (text, image); a tokenizer's template takes plain text."""
    with_format_instruction: bool
    """Whether prompts state the completion format. A system turn does or, without a system role, the user turn."""
    clips: ClipView = field(default_factory=ClipView)
    """How video clips are shown."""

    def images(self, row: PromptRow) -> list[str]:
        """Paths of the images that the prompt shows, for `StudyImages`; frames of clips are images unless `video`."""
        return [path for item in row.media for path in self._paths(item) if not self._is_video(item)]

    def video_clips(self, row: PromptRow, images: StudyImages) -> list[Clip]:
        """The clips of the row that go to the processor's video input; none unless `clips.show` is `video`."""
        return [
            Clip(
                frames=tuple(images(self._paths(item))),
                times=tuple(item.times[index] for index in shown_frames(item, self.clips.max_frames)),
                duration=item.duration,
                fps=item.fps,
            )
            for item in row.media
            if self._is_video(item)
        ]

    def _paths(self, item: Media) -> list[str]:
        if item.kind == "image":
            return [item.path]
        return [frame_path(item.strip, index, len(item.times)) for index in shown_frames(item, self.clips.max_frames)]

    def _is_video(self, item: Media) -> bool:
        return item.kind == "video" and self.clips.show == "video"

    def _media_parts(self, row: PromptRow) -> list[str]:
        """Types of the parts that show a row's images and clips."""
        parts = (["video"] if self._is_video(item) else ["image"] * len(self._paths(item)) for item in row.media)
        return [kind for of_item in parts for kind in of_item]

    def prompt(self, row: PromptRow) -> list[dict[str, Any]]:
        """The conversation up to where the completion begins."""
        return self._prompt(row, in_system_turn=not self.with_format_instruction or self._has_system_role)

    def completion(self, text: str) -> list[dict[str, Any]]:
        """The assistant turn that follows a prompt."""
        return [{"role": "assistant", "content": [{"type": "text", "text": text}] if self._in_parts else text}]

    def rendered(self, row: PromptRow) -> str:
        """The prompt as the template writes it, up to the model's first sampled token."""
        return self._render(self.prompt(row), add_generation_prompt=True)

    @cached_property
    def prefilled(self) -> str:
        """Text that the template writes at the beginning of each completion, such as `<think>`; mostly empty.

        The model does not sample it, but it belongs to the completion: rewards see both.
        """
        turns = self.prompt(_PROBE)
        prompt, bare = self._render(turns, add_generation_prompt=True), self._render(turns)
        if not prompt.startswith(bare):
            bare = prompt[: prompt.rindex(_PROBE.choices[-1]) + len(_PROBE.choices[-1])]
        opening = prompt[len(bare) :]
        # An assistant turn that is not the last one shows the header alone.
        header = self._answered[0].removeprefix(bare)
        tags = [opening.index(tag) for tag in TAGS if tag in opening]
        shared = takewhile(lambda pair: pair[0] == pair[1], zip(opening, header, strict=False))
        begins = sum(1 for _ in shared) or min(tags, default=len(opening))
        text = opening[begins:]
        for token in tokenizer_of(self.processor).all_special_tokens:
            text = text.replace(str(token), "")
        return text if text.strip() else ""

    def demonstration(self, row: PromptRow) -> str:
        """The part of the row's demonstration that the model samples, after the prefilled beginning.

        Errors: ValueError if the demonstration does not begin with the text that the template prefills.
        """
        text = str(row.demonstration)
        if not self.prefilled:
            return text
        for beginning in (self.prefilled, self.prefilled.strip()):
            if text.startswith(beginning):
                return text.removeprefix(beginning)
        raise ValueError(
            f"prompt {row.prompt_id}: demonstration: begins with {text[:20]!r}, but the chat template begins every "
            f"completion with {self.prefilled!r}; begin the demonstrations with it, or take a template without it"
        )

    def end_token(self, ends: Sequence[str]) -> str:
        """The token that ends a completion: the one that the template writes, else the tokenizer's.

        Args:
            ends: the tokens that end a completion of the model.
        """
        after = self._answered[1].lstrip()
        return next((end for end in ends if after.startswith(end)), str(tokenizer_of(self.processor).eos_token))

    def is_faithful(self, row: PromptRow, ends: Sequence[str]) -> bool:
        """Whether the template renders a row with its demonstration as prompt, demonstration and end token."""
        turns = self.prompt(row) + self.completion(str(row.demonstration))
        expected = self.rendered(row) + self.demonstration(row)
        try:
            whole = self._render(turns)
        except TemplateError:
            return False
        return whole.startswith(expected) and whole[len(expected) :].startswith(tuple(ends))

    def _prompt(self, row: PromptRow, *, in_system_turn: bool) -> list[dict[str, Any]]:
        text = instruction(row) if self.with_format_instruction else None
        place = "system" if in_system_turn else "preface"
        turns = messages(row, media=self._media_parts(row), **{place: text})
        if self._in_parts:
            return turns
        return [{**turn, "content": "".join(part["text"] for part in turn["content"])} for turn in turns]

    @cached_property
    def _has_system_role(self) -> bool:
        """Whether the template shows a system turn; some refuse it, others leave it out."""
        try:
            return instruction(_PROBE) in self._render(self._prompt(_PROBE, in_system_turn=True))
        except TemplateError:
            return False

    @cached_property
    def _answered(self) -> tuple[str, str]:
        """Text that the template writes before and after an assistant turn that another turn follows."""
        turns = self._prompt(_PROBE, in_system_turn=self._has_system_role)
        try:
            text = self._render([*turns, *self.completion(_ANSWER), turns[-1]])
        except TemplateError:
            return "", ""
        before, _, after = text.partition(_ANSWER)
        return before, after

    def _render(self, turns: list[dict[str, Any]], *, add_generation_prompt: bool = False) -> str:
        prepare: Any = self.processor
        return prepare.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)

    @property
    def _in_parts(self) -> bool:
        return isinstance(self.processor, ProcessorMixin)


_PROBE = PromptRow(prompt_id="probe", question="Which number is larger?", answer="B", choices=("3517", "8264"))
_ANSWER = "Eight thousand"


def chat_format(processor: Processor, recipe: Recipe) -> ChatFormat:
    """An arm's chat format. It states the completion format only if no warm start demonstrates it.

    Errors: StudyError as in `check_chat_format`.
    """
    if reads_documents(processor):
        return ChatFormat(processor=processor, with_format_instruction=False)  # an encoder reads the document alone
    check_chat_format(processor, recipe)
    clips = ClipView() if isinstance(recipe.model, TinyLM | TinySeq2Seq) else recipe.model.clips
    return ChatFormat(processor=processor, with_format_instruction=recipe.sft is None, clips=clips)


def check_chat_format(processor: Processor, recipe: Recipe) -> None:
    """Raise StudyError unless a model's template and tokenizer can show and read the completion format.

    The template has to show the question, and the format instruction where no warm start demonstrates the format. The
    tags have to survive encoding and decoding, since rewards look for them in the decoded text.

    Args:
        processor: a processor or a tokenizer; the model itself is not needed.
        recipe: the arm's recipe.
    """
    chat = ChatFormat(processor=processor, with_format_instruction=recipe.sft is None)
    tokenizer: Any = tokenizer_of(processor)
    name = recipe.model.name if isinstance(recipe.model, HubModel) else recipe.model.kind
    try:
        prompt = chat.rendered(_PROBE)
    except TemplateError as error:
        raise StudyError([f"model: the chat template of {name!r} refuses a prompt: {error}"]) from error
    problems: list[str] = []
    if _PROBE.question not in prompt:
        problems.append(f"model: the chat template of {name!r} leaves out the question; it gives {prompt!r}")
    if chat.with_format_instruction and instruction(_PROBE) not in prompt:
        problems.append(f"model: the chat template of {name!r} leaves out the format instruction; it gives {prompt!r}")
    text = demonstrate("B", "8264 is larger")
    decoded = tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"], skip_special_tokens=True)
    lost = [tag for tag in TAGS if tag not in decoded]
    if lost:
        why = (
            "they are special tokens" if set(lost) <= set(tokenizer.all_special_tokens) else f"{text!r} -> {decoded!r}"
        )
        problems.append(
            f"model: the tags {', '.join(lost)} vanish when a completion of {name!r} is decoded ({why}), so that no "
            "reward could find them; take a tokenizer in which they are plain text or added tokens that are not special"
        )
    if tokenizer.eos_token is None:
        problems.append(f"model: the tokenizer of {name!r} has no end-of-sequence token; set eos_token")
    if problems:
        raise StudyError(problems)
