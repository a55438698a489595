# pyright: basic
# (accelerate has no types, and those of TRL leave most attributes of a trainer open)
"""GRPO for encoder-decoders: swap TRL's `GRPOTrainer` for `Seq2SeqGRPOTrainer` to train T5, BART and the like.

Only methods that sample and score sequences are overridden. TRL's loss, its reference model, advantages, rewards,
credit, metrics and checkpoints are those of `CreditGRPOTrainer`.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlassay.models.seq2seq import (
    DOCUMENT_TEMPLATE,
    causal_generate,
    check_seq2seq,
    disable_dropout,
    document_ids,
    teacher_forcing,
)
from rlassay.signals.document import check_recordable
from rlassay.signals.formulas import entropy, token_logps
from rlassay.training.batch import turn_text
from rlassay.training.trainer import CreditGRPOTrainer


class Seq2SeqGRPOTrainer(CreditGRPOTrainer):
    r"""`CreditGRPOTrainer` for encoder-decoders: the encoder reads the prompt, the decoder writes the completion.

    Takes the arguments of `CreditGRPOTrainer`. Prompts are texts, or conversations, of which the encoder reads the text
    of all turns unless the tokenizer has a chat template. The log-prob of a completion token is
    $\log \pi(y_t \mid x, p, y_{<t})$ with the document $x$ and the decoder's prefix $p$: the start token and the forced
    BOS token, which are never sampled and never trained.

    Completions are sampled from the model's distribution, at the `temperature` and `top_p` of the arguments: generation
    settings of the checkpoint, such as beams or a minimal length, have no effect. `generation_kwargs={"num_beams": G,
    "num_return_sequences": G}` takes all G completions of a group from one sampled beam search; they are then far more
    alike than independent samples.

    Dropout of the policy and of the reference model is switched off, since TRL samples and scores in training mode.

    Raises (`__init__`, beside the errors of `CreditGRPOTrainer`):
        ValueError: a causal model, a tokenizer without a padding token, `max_completion_length` above the decoder's
            positions, an empty prompt, engines and tools that only causal models have.
    """

    xp_encoder_decoder = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        processor = kwargs.get("processing_class")
        # TRL would take the end token for padding.
        if isinstance(processor, PreTrainedTokenizerBase) and processor.pad_token is None:
            raise ValueError(
                f"processing_class: {type(processor).__name__} has no padding token, with which the encoder's batches "
                "are filled; set pad_token to the one that the model was trained with"
            )
        super().__init__(*args, **kwargs)
        for model in (self._xp_model(), self.ref_model):
            if model is not None:
                disable_dropout(model)

    def _xp_check(self) -> None:
        model, arguments = self._xp_model(), self._xp_arguments()
        if self._is_vlm:
            raise ValueError("processing_class: got a processor, expected a tokenizer: encoder-decoders read text only")
        check_seq2seq(model, self._tokenizer, self.max_completion_length)
        unfit = {
            "use_vllm": self.use_vllm,
            "use_transformers_continuous_batching": self.use_transformers_continuous_batching,
            "tools": bool(self.tools),
            "output_router_logits": self.aux_loss_enabled,
            "cast_lm_head_to_fp32": arguments.cast_lm_head_to_fp32,
            "kl (exact)": self.xp_kl is not None and self.xp_kl.kind == "exact",
            "critic": self.xp_advantages.options is not None,
            "peft_config (prompt learning)": any(
                each.is_prompt_learning for each in getattr(model, "peft_config", {}).values()
            ),
        }
        if refused := [name for name, is_set in unfit.items() if is_set]:
            raise ValueError(f"{', '.join(refused)}: not available for encoder-decoders; leave it out")
        self._xp_check_beams()
        self._xp_check_prompts()
        self._xp_check_attention()
        super()._xp_check()

    def _xp_check_beams(self) -> None:
        """Raise ValueError unless each process has whole groups.

        A beam search gives a whole group.
        """
        sequences = self.generation_config.num_return_sequences or 1
        beams = self.generation_config.num_beams or 1
        if beams == sequences == 1:
            return
        arguments = self._xp_arguments()
        size = arguments.per_device_train_batch_size * arguments.steps_per_generation
        if sequences != self.num_generations or beams < sequences or size % sequences:
            raise ValueError(
                f"generation_kwargs: got num_beams {beams} and num_return_sequences {sequences}; expected "
                f"num_return_sequences = num_generations {self.num_generations}, at least as many beams, and whole "
                f"groups per process (it generates {size} completions)"
            )

    def _xp_check_prompts(self) -> None:
        """Refuse an empty document among the prompts of a table, before anything is sampled."""
        dataset: Any = self.train_dataset
        columns = getattr(dataset, "column_names", None) or ()
        if "prompt" not in columns:
            return  # rows made when they are drawn; `document_ids` checks each batch
        for number, prompt in enumerate(dataset["prompt"]):
            if not _text(prompt).strip():
                raise ValueError(f"train_dataset: row {number}: prompt: got {prompt!r}, an empty document; remove it")

    def _xp_check_attention(self) -> None:
        """Refuse to measure the attention of a model whose attention cannot be recorded."""
        if not self.xp_signal_plan.attention:
            return
        try:
            check_recordable(self._xp_model())
        except ValueError as error:
            raise ValueError(
                f"signals.attention: true, but that of {type(self._xp_model()).__name__} cannot be recorded ({error}); "
                "leave it out, or in a study set diagnostics.compute_attention_metrics to false"
            ) from error

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Called by TRL: the encoder's tokens, special ones included, within the model's positions."""
        tokenizer: Any = self.processing_class
        options: Any = self.chat_template_kwargs
        template = self.chat_template or tokenizer.chat_template or DOCUMENT_TEMPLATE
        rendering = {"chat_template": template, **(options or {})}
        texts = [
            prompt if isinstance(prompt, str) else tokenizer.apply_chat_template(prompt, tokenize=False, **rendering)
            for prompt in prompts
        ]
        return document_ids(self._xp_model(), tokenizer, texts), None, {}

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Called by TRL to sample; keeps its padding, unwrapping and cutting at the end token."""
        with causal_generate(self._xp_model()):
            return super()._generate_single_turn(*args, **kwargs)

    def _get_per_token_logps_and_entropies(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **unused: Any,  # images, and the loss of routers, which `_xp_check` refuses
    ) -> tuple[Tensor, Tensor | None, None]:
        """Called by TRL to score: completions' log-probs and entropies, (B, C), nats.

        The entropies are those of the tokens' distributions. TRL's fused LM head cannot be used: the head of T5 scales
        hidden states, that of BART adds a bias.
        """
        size = batch_size or len(input_ids)
        logps: list[Tensor] = []
        entropies: list[Tensor] = []
        for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True):
            arguments = teacher_forcing(self._xp_model(), ids, mask, logits_to_keep)
            with self.accelerator.autocast():
                logits = model(**arguments).logits[:, -logits_to_keep:]
            log_probs = (logits.float() / self.temperature).log_softmax(dim=2)
            logps.append(token_logps(log_probs, ids[:, -logits_to_keep:]))
            if compute_entropy:
                with torch.set_grad_enabled(torch.is_grad_enabled() and self._xp_arguments().entropy_coef != 0):
                    entropies.append(entropy(log_probs))
        self.xp_per_token_logps = torch.cat(logps)  # a KL penalty in the loss reads them
        return self.xp_per_token_logps, torch.cat(entropies) if compute_entropy else None, None

    def _xp_arguments(self) -> Any:
        """TRL's `GRPOConfig`, which transformers' types know as `TrainingArguments`."""
        return self.args


def _text(prompt: Any) -> str:
    """The text of a prompt for the encoder, from a text or a conversation."""
    return prompt if isinstance(prompt, str) else "".join(turn_text(turn.get("content")) for turn in prompt)
