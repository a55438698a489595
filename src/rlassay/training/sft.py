"""The supervised warm start: TRL's `SFTTrainer` on the demonstrations of the `sft` split."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets  # pyright: ignore[reportMissingTypeStubs]
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import DataCollatorForSeq2Seq, Trainer, set_seed
from trl.trainer.sft_config import SFTConfig as SFTArguments
from trl.trainer.sft_trainer import SFTTrainer

from rlassay.config.fingerprints import code_digest
from rlassay.config.model import HubModel, ModelConfig
from rlassay.config.policies import Policy
from rlassay.config.settings import Trackers
from rlassay.config.study import Study
from rlassay.config.training import SFTConfig
from rlassay.files import sha256
from rlassay.images import StudyImages
from rlassay.layout import Layout
from rlassay.models.hub import Model, Processor
from rlassay.models.policy import (
    ChatFormat,
    build_policy,
    chat_format,
    end_token_ids,
    load_policy,
    on_device,
    peft_config,
    tokenizer_of,
    training_rows,
)
from rlassay.models.seq2seq import LabelShift, decoder_positions, document_ids, is_encoder_decoder, label_ids
from rlassay.ranks import is_main
from rlassay.records import TRAINING_SPLITS, PromptRow, read_rows
from rlassay.training.job_callback import add_trackers
from rlassay.training.process import join_processes, require_gpus, wait_for_all
from rlassay.training.scale.strategy import (
    allow_on_cpu,
    checked,
    strategy_arguments,
    strategy_libraries,
    with_precision,
)
from rlassay.training.state import RunPlan, open_run
from rlassay.training.video import ClipCollator
from rlassay.training.vllm.room import require_room_for_all

CODE = "rlassay.training.sft"
KEPT_CHECKPOINTS = 2
PROBE_ROWS = 2
"""Rows on which the merged model must give the logits of the trained one."""
MERGE_TOLERANCE = {"torch.float32": 1e-3, "torch.bfloat16": 0.05, "torch.float16": 0.01}
"""Type of the weights -> largest difference of a logit over the largest logit. Merging rounds the weights."""
logger = logging.getLogger(__name__)


def run_sft(study: Study, layout: Layout, policy: Policy, report_to: Trackers = ()) -> None:
    """Train the warm start `policy`, or resume it after a kill; its manifest `sft.json` is written last.

    It saves a full model with merged adapters, or the adapter if merging changes the logits, see `merged`.
    Errors: ValueError for another policy or a row without demonstration; RefusedError and StudyError as in
    `run_rl`.
    """
    model_config, sft = policy.recipe.warm_start_model, policy.recipe.sft
    if sft is None or policy.stage != "sft":
        raise ValueError(f"{policy.folder} is not a warm start")
    require_gpus(study.gpus)
    join_processes(study.num_processes, on_cpu=study.gpus == 0)
    plan = _plan(study, layout, policy, sft)
    with open_run(layout, plan) as run:
        if run.finished:
            return
        rows = demonstrated_rows(layout)
        model, processor = build_policy(model_config, training_rows(layout))
        require_room_for_all(study, layout, policy, model, processor)
        shared = strategy_arguments(study.strategy, model, bf16=study.bf16, cpu_offload=study.cpu_offload)
        arguments = sft_arguments(sft, plan.seed, run.checkpoints, shared, on_cpu=study.gpus == 0)
        allow_on_cpu(arguments)
        chats = chat_format(processor, policy.recipe)
        if is_encoder_decoder(model):
            trainer: Any = seq2seq_trainer(model, rows, chats, arguments, peft_config(model_config, seq2seq=True))
        else:
            trainer = SFTTrainer(
                model=model,
                args=arguments,
                train_dataset=sft_dataset(rows, chats, layout.data, end_tokens(model, processor)),
                processing_class=processor,
                peft_config=peft_config(model_config),
                data_collator=ClipCollator(processor) if shows_video(rows, chats) else None,
            )
        checked(trainer, study.strategy).add_callback(run.callback())
        add_trackers(trainer, report_to, run, study.id)
        trainer.train(resume_from_checkpoint=run.resume_from)
        # Merged into four bits, an adapter would be rounded away: RL trains it further.
        packed = isinstance(model_config, HubModel) and model_config.in_4bit
        if isinstance(trainer.model, PeftModel) and not packed:
            trainer.model = merged(trainer, model_config, run.state / "adapter")
        run.finish(trainer)


def seq2seq_trainer(
    model: Any, rows: Sequence[PromptRow], chats: ChatFormat, arguments: SFTArguments, adapters: Any
) -> Trainer:
    """transformers' trainer on pairs of document and demonstration, batched by its own collator.

    Errors: ValueError for a demonstration longer than the decoder's positions, before any step.
    """
    tokenizer: Any = chats.processor
    labels = label_ids(model, tokenizer, [str(row.demonstration) for row in rows])
    positions = decoder_positions(model)
    for row, ids in zip(rows, labels, strict=True):
        if positions is not None and len(ids) > positions:
            raise ValueError(
                f"prompt {row.prompt_id}: demonstration: got {len(ids)} tokens, but the decoder has {positions} "
                "positions; expected a shorter one: remove the row"
            )
    documents = document_ids(model, tokenizer, [chats.rendered(row) for row in rows])
    library: Any = datasets
    trained: Any = model
    if adapters is not None:
        set_seed(arguments.seed)  # adapters begin with random numbers
        with_adapters: Any = get_peft_model
        trained = with_adapters(model, adapters)
    return Trainer(
        model=trained,
        args=arguments,
        train_dataset=library.Dataset.from_dict({"input_ids": documents, "labels": labels}),
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=LabelShift(model)),
        compute_loss_func=mean_over_tokens,
    )


def mean_over_tokens(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """Cross-entropy of the labels, mean over the label tokens of an optimiser step, nats.

    The models' own loss is the mean over one micro-batch on one process, which `Trainer` would treat as this mean:
    multiply by the number of processes and add up over micro-batches.

    Args:
        outputs: of the model, with `logits` (B, T, V).
        labels: (B, T); -100 does not count.
        num_items_in_batch: label tokens of the step, over all micro-batches and processes; None counts these.
    """
    total = torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")
    return total / ((labels != -100).sum() if num_items_in_batch is None else num_items_in_batch)


def merged(trainer: Any, config: ModelConfig, folder: Path) -> Model:
    """Merge the trained adapter into its model; if that changes the logits, return the model with the adapter.

    Tied embeddings are untied first where only one of the two has an adapter, since merging would change both.

    Args:
        trainer: a finished `SFTTrainer`, whose model is a `PeftModel`.
        config: the study's model section.
        folder: folder for the adapter meanwhile.
    """
    adapted = trainer.model
    trainer.save_model(str(folder))  # merging overwrites the base model's weights
    wait_for_all()
    rows = [trainer.train_dataset[index] for index in range(min(PROBE_ROWS, len(trainer.train_dataset)))]
    probe = trainer.data_collator(rows)
    before = _logits(adapted, probe)
    _untie(adapted)
    model = adapted.merge_and_unload()
    difference, scale = (_logits(model, probe) - before).abs().max().item(), before.abs().max().item()
    if not difference <= MERGE_TOLERANCE[str(model.dtype)] * scale:  # also for NaN
        logger.warning(
            "Merging the adapter would change the logits by up to %.3g, where they reach %.3g: the warm start is kept "
            "as an adapter of %s.",
            difference,
            scale,
            adapted.peft_config["default"].base_model_name_or_path,
        )
        device = model.device
        del adapted, model
        model = on_device(load_policy(config, folder)[0], str(device))
    wait_for_all()
    if is_main():
        shutil.rmtree(folder)
    return model


def _logits(model: Any, probe: Mapping[str, Any]) -> torch.Tensor:
    inputs = {
        name: value.to(model.device) for name, value in probe.items() if name not in ("labels", "completion_mask")
    }
    # An encoder-decoder gives logits for the decoder's inputs, a causal model for all.
    counted = probe["labels"] != -100 if "decoder_input_ids" in inputs else inputs["attention_mask"].bool()
    with torch.inference_mode():
        return model.eval()(**inputs).logits[counted].float()


def _untie(adapted: Any) -> None:
    """Untie output from input embeddings if they share weights and one is adapted."""
    model = adapted.get_base_model()
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    if not any(isinstance(layer, BaseTunerLayer) for layer in layers):
        return
    inputs: Any
    outputs: Any
    inputs, outputs = (layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer for layer in layers)
    if outputs is not None and outputs.weight is inputs.weight:
        outputs.weight = torch.nn.Parameter(inputs.weight.detach().clone())
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False


def _plan(study: Study, layout: Layout, policy: Policy, sft: SFTConfig) -> RunPlan:
    return RunPlan(
        policy=policy.folder,
        stage="sft",
        arm=None,
        seed=sft.seed if policy.seed is None else policy.seed,
        max_steps=sft.max_steps,
        gpus=study.gpus,
        libraries=strategy_libraries(study.strategy),
        fingerprint=policy.fingerprint,
        inputs={"code": code_digest(CODE), **_row_digests(layout)},
    )


def demonstrated_rows(layout: Layout) -> list[PromptRow]:
    """The rows of the `sft` split; ValueError naming the first without a demonstration."""
    path = layout.split("sft")
    rows = list(read_rows(path))
    for number, row in enumerate(rows, 1):
        if row.demonstration is None:
            raise ValueError(f"{path}:{number}: demonstration: missing; every row of the sft split needs one")
    return rows


def end_tokens(model: Model, processor: Processor) -> list[str]:
    """The tokens that end a completion of the model, as texts."""
    tokenizer: Any = tokenizer_of(processor)
    return tokenizer.convert_ids_to_tokens(end_token_ids(model, processor))


def shows_video(rows: Sequence[PromptRow], chat_format: ChatFormat) -> bool:
    """Whether any row shows a clip by the processor's video input.

    TRL's collator does not read it.
    """
    kinds = {item.kind for row in rows for item in row.media}
    return chat_format.clips.show == "video" and "video" in kinds


def sft_dataset(
    rows: Sequence[PromptRow], chat_format: ChatFormat, data: Path, ends: Sequence[str] | None = None
) -> datasets.Dataset:
    """Dataset in TRL's prompt-completion format: `prompt`, `completion` and, if any row has some, `images`.

    If the template rewrites any demonstration or ends it without an end token, or if rows show clips by the video input
    (see `ClipCollator`), all rows are plain texts instead: prompt, demonstration and end token, as RL and evaluation
    sample them.

    Args:
        rows: rows with a demonstration.
        chat_format: turns a row into messages.
        data: folder that the image paths of rows are relative to.
        ends: the tokens that end a completion of the model; None takes the tokenizer's.
    """
    if ends is None:
        ends = [str(tokenizer_of(chat_format.processor).eos_token)]
    library: Any = datasets
    datasets.disable_progress_bars()
    if shows_video(rows, chat_format):
        columns = _written_out(rows, chat_format, chat_format.end_token(ends))
        dataset = library.Dataset.from_dict({**columns, "images": list(range(len(rows)))})
        return dataset.with_transform(_OpenMedia(rows, chat_format, data))
    rewritten = [row for row in rows if not chat_format.is_faithful(row, ends)]
    if rewritten:
        logger.warning(
            "The chat template rewrites %d of %d demonstrations, such as that of prompt %s, or writes no end token. "
            "The warm start learns the demonstrations as they are in the data.",
            len(rewritten),
            len(rows),
            rewritten[0].prompt_id,
        )
    columns = (
        _written_out(rows, chat_format, chat_format.end_token(ends)) if rewritten else _messages(rows, chat_format)
    )
    if any(row.media for row in rows):
        columns["images"] = [chat_format.images(row) for row in rows]
    dataset = library.Dataset.from_dict(columns)
    return dataset.with_transform(_OpenImages(data)) if "images" in columns else dataset


class _OpenImages:
    """Opens the images of rows when a batch is drawn; `images` holds their paths until then."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.images = StudyImages(data)

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**batch, "images": [self.images(paths) for paths in batch["images"]]}

    def __reduce__(self) -> tuple[type["_OpenImages"], tuple[Path]]:
        # `datasets` fingerprints a transform by pickling it, which leaves out the images in memory.
        return type(self), (self.data,)


class _OpenMedia:
    """Opens the images and clips of rows when a batch is drawn; `images` holds the rows' numbers until then."""

    def __init__(self, rows: Sequence[PromptRow], chat_format: ChatFormat, data: Path) -> None:
        self.rows, self.chat_format, self.images = rows, chat_format, StudyImages(data)

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**batch, "images": [self._media(self.rows[int(number)]) for number in batch["images"]]}

    def _media(self, row: PromptRow) -> list[Any]:
        return [*self.images(self.chat_format.images(row)), *self.chat_format.video_clips(row, self.images)]

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (" ".join(row.prompt_id for row in self.rows),)  # as `datasets` fingerprints a transform


def _messages(rows: Sequence[PromptRow], chat_format: ChatFormat) -> dict[str, list[Any]]:
    return {
        "prompt": [chat_format.prompt(row) for row in rows],
        "completion": [chat_format.completion(str(row.demonstration)) for row in rows],
    }


def _written_out(rows: Sequence[PromptRow], chat_format: ChatFormat, end: str) -> dict[str, list[Any]]:
    prompts = [chat_format.rendered(row) for row in rows]
    completions = [chat_format.demonstration(row) + end for row in rows]
    if any(row.media for row in rows):
        return {"prompt": prompts, "completion": completions}
    # TRL would tokenize texts with another begin-of-sequence token.
    tokenizer: Any = tokenizer_of(chat_format.processor)
    heads, tails = (tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in (prompts, completions))
    return {
        "input_ids": [head + tail for head, tail in zip(heads, tails, strict=True)],
        "completion_mask": [[0] * len(head) + [1] * len(tail) for head, tail in zip(heads, tails, strict=True)],
    }


def sft_arguments(
    sft: SFTConfig, seed: int, checkpoints: Path, shared: Mapping[str, Any] | None = None, *, on_cpu: bool
) -> SFTArguments:
    """TRL's arguments for the `sft` section; the loss counts completion tokens only."""
    return SFTArguments(
        **with_precision(shared, on_cpu=on_cpu),
        output_dir=str(checkpoints),
        seed=seed,
        max_steps=sft.max_steps,
        learning_rate=sft.learning_rate,
        lr_scheduler_type=sft.lr_scheduler_type,
        warmup_steps=sft.warmup_steps,
        weight_decay=sft.weight_decay,
        adam_beta1=sft.adam_beta1,
        adam_beta2=sft.adam_beta2,
        max_grad_norm=sft.max_grad_norm,
        per_device_train_batch_size=sft.per_device_train_batch_size,
        gradient_accumulation_steps=sft.gradient_accumulation_steps,
        gradient_checkpointing=sft.gradient_checkpointing,
        activation_offloading=sft.activation_offloading,
        optim=sft.optim,
        use_liger_kernel=sft.use_liger_kernel,
        torch_compile=sft.torch_compile,
        save_steps=sft.save_steps,
        save_total_limit=KEPT_CHECKPOINTS,
        completion_only_loss=True,
        max_length=None,
        logging_steps=1,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        report_to="none",
        disable_tqdm=True,
    )


def _row_digests(layout: Layout) -> dict[str, str]:
    paths = {name: layout.split(name) for name in TRAINING_SPLITS}
    return {name: sha256(path) for name, path in paths.items() if path.exists()}
