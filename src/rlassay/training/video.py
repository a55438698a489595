# pyright: basic
# (TRL leaves most attributes of a trainer open)
"""Train on prompts with clips, which TRL passes to sampling but not to the loss.

A prompt with clips has them, and its images, in its messages: `{"type": "video", "video": Clip}`. TRL's own columns are
left out, or it would process the prompts a second time. The processor runs once per distinct prompt. Its tensors pass
through TRL's shuffling and splitting as one object per completion, and each pass that computes log-probabilities gets
those of its rows. Rows with clips, with images and with text alone may therefore share a batch. The loss is TRL's.

A warm start uses TRL's trainer with another collator, `ClipCollator`.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import ProcessorMixin

from rlassay.models.policy import tokenizer_of
from rlassay.models.video_input import identities, process_prompt, video_input_problem
from rlassay.models.vllm_engine import NEVER, video_problem
from rlassay.training.algorithms.kl_trainer import KLTrainer
from rlassay.training.batch import clips_of, images_of
from rlassay.training.vllm.sampler import ClipPrompt

MEDIA = "xp_media"
"""Key of the media of a generation batch, besides TRL's own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptMedia:
    """One prompt after the processor."""

    by_token: dict[str, Tensor]
    """Tensors with one value per position of the prompt, such as its token types; without ids and mask."""
    by_media: dict[str, Tensor]
    """Tensors of its images and clips (pixels, grids, seconds per grid); empty for text."""


class VideoTrainer(KLTrainer):
    """`KLTrainer` that also trains on prompts with clips; without clips it is `KLTrainer`.

    Raises (when a batch with clips is drawn):
        ValueError: the study uses a vLLM server or tools, which take images only, or vLLM with a model whose clips it
            reads otherwise.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.xp_media: list[PromptMedia] | None = None
        super().__init__(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.xp_media = None
        self._xp_for_vllm(None)
        output = super()._generate_and_score_completions(inputs)
        return output if self.xp_media is None else {**output, MEDIA: self.xp_media}

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[Any, ...]:
        ids = self.xp_process_media(prompts)
        if self.xp_media is None:
            return super()._tokenize_prompts(prompts)
        names = {name for media in self.xp_media for name in media.by_token}
        types = {name: [media.by_token[name].tolist() for media in self.xp_media] for name in names}
        return ids, None, {**types, **joined_media(self.xp_media)}

    def xp_process_media(self, prompts: list[Any]) -> list[list[int]]:
        """Tokens of prompts; stores their media in `xp_media`. Without clips both are empty and TRL does the work."""
        self.xp_media = None
        self._xp_for_vllm(None)
        with_images = {bool(images_of(prompt)) for prompt in prompts}
        # TRL takes images in all prompts or in none.
        if not any(clips_of(prompt) for prompt in prompts) and len(with_images) == 1:
            return []
        self._xp_check_video()
        processed: dict[Hashable, tuple[list[int], PromptMedia]] = {}
        keys: list[Hashable] = []
        sent: list[ClipPrompt] = []
        for prompt in prompts:
            text = self._xp_text(prompt)
            shown = [*images_of(prompt), *clips_of(prompt)]
            keys.append((text, *identities(shown)))
            tokenizer: Any = tokenizer_of(cast(Any, self.processing_class))
            sent.append(ClipPrompt(ids=tokenizer(text, add_special_tokens=False)["input_ids"], media=shown))
            if keys[-1] not in processed:
                by_token, by_media = process_prompt(self.processing_class, text, shown)
                ids = by_token.pop("input_ids").tolist()
                by_token.pop("attention_mask")
                processed[keys[-1]] = ids, PromptMedia(by_token=by_token, by_media=by_media)
        self._xp_for_vllm(sent)
        self.xp_media = [processed[key][1] for key in keys]
        return [processed[key][0] for key in keys]

    def _get_per_token_logps_and_entropies(self, model: Any, input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.xp_media is None:
            return super()._get_per_token_logps_and_entropies(model, input_ids, *args, **kwargs)
        media, kept = iter(self.xp_media), args[1] if len(args) > 1 else kwargs["logits_to_keep"]

        def with_media(**inputs: Any) -> Any:
            ids = inputs["input_ids"]
            rows = [next(media) for _ in range(len(ids))]  # TRL takes the chunks of a batch in order
            return model(**inputs, **_inputs_of(rows, ids, kept))

        return super()._get_per_token_logps_and_entropies(with_media, input_ids, *args, **kwargs)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        self.xp_media = inputs.get(MEDIA)
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self.xp_media = None

    def xp_media_inputs(self, ids: Tensor, completion_length: int) -> dict[str, Tensor]:
        """Inputs of the model for the media of a batch; `ids` are its tokens, prompts and completions."""
        return {} if self.xp_media is None else _inputs_of(self.xp_media, ids, completion_length)

    def _xp_text(self, prompt: list[dict[str, Any]]) -> str:
        render: Any = self.processing_class
        options = self._xp_template_options()
        return render.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **options)

    def _xp_template_options(self) -> dict[str, Any]:
        """The arguments with which TRL renders every prompt, beside its tools."""
        given: Any = self.chat_template_kwargs
        return {"chat_template": self.chat_template, **given}

    def _xp_for_vllm(self, prompts: list[ClipPrompt] | None) -> None:
        trainer: Any = self  # a `CreditGRPOTrainer`
        trainer.xp_sampling.clip_prompts = prompts

    def _xp_check_video(self) -> None:
        """Refuse engines and tools without clips, and ban video placeholders, which would have no pixels."""
        images_only = {
            # TRL's client sends it images alone.
            "a vLLM server": self.use_vllm and self.vllm_mode == "server",
            "tools": bool(self.tools),
        }
        refused = [name for name, used in images_only.items() if used]
        if refused:
            raise ValueError(f"prompts with clips for the processor's video input, but {', '.join(refused)}: images "
                             "only; show clips as frames")  # fmt: skip
        if not isinstance(self.processing_class, ProcessorMixin):
            raise ValueError(f"prompts with clips, but {type(self.processing_class).__name__} reads text only")
        if (problem := video_input_problem(self.processing_class)) is not None:
            raise ValueError(f"prompts with clips for the processor's video input, but the model {problem}; show clips "
                             "as frames")  # fmt: skip
        model: Any = self.model
        token = model.config.video_token_id
        if self.use_vllm:
            if (problem := video_problem(model.config.model_type)) is not None:
                raise ValueError(problem)
            self.vllm_generation.generation_kwargs["logit_bias"][token] = NEVER
            return
        suppressed = list(self.generation_config.suppress_tokens or [])
        if token not in suppressed:
            self.generation_config.suppress_tokens = [*suppressed, token]


def _inputs_of(rows: Sequence[PromptMedia], ids: Tensor, completion_length: int) -> dict[str, Tensor]:
    """Inputs of the model for the media of rows; `ids` are their tokens, prompts and completions."""
    added = {**token_media(rows, ids, ids.shape[1] - completion_length), **joined_media(rows)}
    return {name: values.to(ids.device) for name, values in added.items()}


def joined_media(rows: Sequence[PromptMedia]) -> dict[str, Tensor]:
    """The tensors of all rows' images and clips, one row after the other."""
    names = sorted({name for row in rows for name in row.by_media})
    return {name: torch.cat([row.by_media[name] for row in rows if name in row.by_media]) for name in names}


def token_media(rows: Sequence[PromptMedia], ids: Tensor, prompt_length: int) -> dict[str, Tensor]:
    """Tensors per position, (rows, positions): prompts end at `prompt_length`; 0 before them and in completions."""
    made: dict[str, Tensor] = {}
    for name in sorted({name for row in rows for name in row.by_token}):
        table = torch.zeros_like(ids)
        for row, media in zip(table, rows, strict=True):
            own = media.by_token[name]
            row[prompt_length - len(own) : prompt_length] = own.to(row.device)
        made[name] = table
    return made


class ClipCollator:
    """Collator of demonstrations whose prompts may show clips by the processor's video input.

    An example has `prompt` and `completion`, texts as the model reads them, and `images`, the images and clips of the
    prompt. Rows are padded on the right, and the labels leave out prompts and padding, as those of TRL's collator with
    `completion_only_loss`.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.tokenizer: Any = tokenizer_of(processor)

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        rows: list[PromptMedia] = []
        labels: list[Tensor] = []
        for example in examples:
            by_token, by_media = process_prompt(self.processor, example["prompt"], example["images"])
            completion = torch.tensor(self.tokenizer(example["completion"], add_special_tokens=False)["input_ids"])
            length, added = len(by_token["input_ids"]), {"input_ids": completion}
            added["attention_mask"] = torch.ones_like(completion)
            whole = {
                name: torch.cat([values, added.get(name, torch.zeros_like(completion))])
                for name, values in by_token.items()
            }
            rows.append(PromptMedia(by_token=whole, by_media=by_media))
            labels.append(torch.cat([torch.full((length,), -100), completion]))
        fills = {"input_ids": int(self.tokenizer.pad_token_id)}
        names = sorted({name for row in rows for name in row.by_token})
        joined = {name: _padded([row.by_token.get(name) for row in rows], labels, fills.get(name, 0)) for name in names}
        return {**joined, **joined_media(rows), "labels": _padded(labels, labels, -100)}


def _padded(rows: Sequence[Tensor | None], like: Sequence[Tensor], fill: int) -> Tensor:
    """Rows padded on the right; zeros in place of a missing one."""
    whole = [torch.zeros_like(other) if row is None else row for row, other in zip(rows, like, strict=True)]
    return torch.nn.utils.rnn.pad_sequence(whole, batch_first=True, padding_value=fill)
