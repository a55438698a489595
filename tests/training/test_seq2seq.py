"""GRPO for encoder-decoders, against forward passes and losses written out by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig

from rlassay.models.seq2seq import decoder_prefix
from rlassay.signals.measuring import SignalPlan
from rlassay.training import CreditGRPOTrainer, Seq2SeqGRPOTrainer, trl_reward
from rlassay.training.rollouts import Rollout
from tests.training import tiny_lm
from tests.training.tiny_lm import even_digits
from tests.training.tiny_seq2seq import SHAPES, dataset, make_trainer, model, tokenizer

PREFIX = {"t5": [0], "bart": [1], "bart_forced": [1, 2], "pegasus": [0], "mbart": [2]}
DOCUMENTS = ([3, 4], [3, 5, 6, 7, 8], [9])
COMPLETIONS = ([4, 1], [13, 12, 11, 0, 5, 1], [7, 7, 7, 1])
"""The padding token within a completion was sampled like any other."""


def padded(rows: Any, *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, padded with the padding token."""
    length = max(map(len, rows))
    fill = [[0] * (length - len(row)) for row in rows]
    ids = [[*gap, *row] if left else [*row, *gap] for row, gap in zip(rows, fill, strict=True)]
    ones = [[1] * len(row) for row in rows]
    mask = [[*gap, *row] if left else [*row, *gap] for row, gap in zip(ones, fill, strict=True)]
    return torch.tensor(ids), torch.tensor(mask)


def alone(policy: Any, shape: str, document: list[int], completion: list[int], temperature: float) -> torch.Tensor:
    """Log-probs (time, vocabulary) of one completion without any padding, by the model's own forward pass."""
    decoder = [*PREFIX[shape], *completion[:-1]]
    inputs = {"input_ids": torch.tensor([document]), "decoder_input_ids": torch.tensor([decoder])}
    logits = policy(**inputs, use_cache=False).logits[0, -len(completion) :]
    return (logits / temperature).log_softmax(dim=1)


@pytest.mark.parametrize("left", [True, False], ids=["left", "right"])
@pytest.mark.parametrize("shape", SHAPES)
def test_log_probs_are_those_of_a_forward_pass_without_padding(shape: str, left: bool, tmp_path: Path):
    trainer = make_trainer(Seq2SeqGRPOTrainer, tmp_path, shape, temperature=0.7)
    documents, document_mask = padded(DOCUMENTS, left=left)
    completions, completion_mask = padded(COMPLETIONS, left=False)
    trainer.model.train()  # as TRL scores; dropout is off
    logps, entropies, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([documents, completions], dim=1),
        torch.cat([document_mask, completion_mask], dim=1),
        completions.shape[1],
        batch_size=2,
        compute_entropy=True,
    )
    policy = model(shape)
    assert decoder_prefix(policy) == PREFIX[shape]
    for row, (document, completion) in enumerate(zip(DOCUMENTS, COMPLETIONS, strict=True)):
        log_probs = alone(policy, shape, document, completion, 0.7)
        expected = torch.stack([log_probs[time, token] for time, token in enumerate(completion)])
        torch.testing.assert_close(logps[row, : len(completion)], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(
            entropies[row, : len(completion)], -(log_probs.exp() * log_probs).sum(dim=1), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("shape", SHAPES)
def test_completions_are_samples_of_the_model_alone(shape: str, tmp_path: Path):
    """At a temperature near 0 they are the likeliest tokens, whatever the checkpoint says about generation."""
    policy = model(shape)
    for name, value in {"num_beams": 3, "no_repeat_ngram_size": 1, "min_length": 6, "forced_eos_token_id": 1}.items():
        setattr(policy.generation_config, name, value)
    trainer = make_trainer(Seq2SeqGRPOTrainer, tmp_path, shape, model=policy, temperature=1e-4)
    trainer._tokenizer.padding_side = "left"
    ids, _, _ = trainer._tokenize_prompts(["count 3 3 3", "count", "count 5"])
    assert ids == [[3, 7, 7, 7], [3], [3, 9]]
    completions, _ = trainer._generate_single_turn(ids, None, {}, 1)
    for document, completion in zip(ids, completions, strict=True):
        decoder = list(PREFIX[shape])
        for _ in range(7):
            logits = model(shape)(input_ids=torch.tensor([document]), decoder_input_ids=torch.tensor([decoder])).logits
            decoder.append(int(logits[0, -1].argmax()))
            if decoder[-1] == 1:
                break
        assert completion == decoder[len(PREFIX[shape]) :]
    assert "generate" not in vars(trainer.model)
    assert policy.generation_config.num_beams == 3


def k3(reference: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
    """exp(r) - r - 1 of the log-ratio r = reference - current."""
    return (reference - current).exp() - (reference - current) - 1


def own_loss(loss_type: str, logps: list[torch.Tensor], old: list[torch.Tensor], advantages: list[float]) -> Any:
    """The loss of each type over completions without padding, epsilon .2, at most seven tokens."""
    rows: list[torch.Tensor] = []
    for current, before, advantage in zip(logps, old, advantages, strict=True):
        ratio = (current - before).exp()
        if loss_type == "cispo":
            rows.append(-ratio.clamp(max=0.2).detach() * advantage * current)
        elif loss_type == "sapo":
            sharp = 1.0 if advantage > 0 else 1.05
            rows.append(-torch.sigmoid(sharp * (ratio - 1)) * 4 / sharp * advantage)
        elif loss_type == "vespo":
            power, rate = (2.0, 3.0) if advantage >= 0 else (3.0, 2.0)
            whole = ratio.prod().detach()
            rows.append(-(whole**power) * torch.exp(rate - rate * whole) * advantage * current)
        else:
            rows.append(-torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage))
    sums, lengths = torch.stack([row.sum() for row in rows]), torch.tensor([len(row) for row in rows])
    if loss_type in ("grpo", "sapo"):
        return (sums / lengths).mean()
    return sums.sum() / {"luspo": len(rows), "dr_grpo": len(rows) * 7}.get(loss_type, int(lengths.sum()))


def own_logps(policy: Any, shape: str, batch: dict[str, Any]) -> list[torch.Tensor]:
    """Log-probs of the completions of a generation batch, one completion at a time and without padding."""
    logps: list[torch.Tensor] = []
    for row in range(len(batch["prompt_ids"])):
        document, completion = (
            batch[f"{part}_ids"][row][batch[f"{part}_mask"][row].bool()].tolist() for part in ("prompt", "completion")
        )
        logps.append(alone(policy, shape, document, completion, 1.0)[torch.arange(len(completion)), completion])
    return logps


LOSSES = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("shape", ["t5", "bart_forced"])
def test_the_gradient_is_that_of_the_loss_written_out(shape: str, loss_type: str, tmp_path: Path):
    trainer = make_trainer(Seq2SeqGRPOTrainer, tmp_path, shape, loss_type=loss_type, credit="uniform")
    trainer.model.train()
    batch = trainer._generate_and_score_completions([dataset()[index] for index in (0, 0, 0, 0, 5, 5, 5, 5)])
    policy = model(shape)
    logps = own_logps(policy, shape, batch)
    # Another old policy, so that ratios differ from 1 and some are clipped.
    noise = torch.linspace(-0.3, 0.25, batch["completion_ids"].numel()).view_as(batch["completion_ids"])
    old = [each.detach() + noise[row, : len(each)] for row, each in enumerate(logps)]
    batch["old_per_token_logps"] = torch.nn.utils.rnn.pad_sequence(old, batch_first=True)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.zero_grad()
    trainer._compute_loss(trainer.model, batch).backward()

    advantages = batch["advantages"][:, 0].tolist()
    assert len({len(each) for each in logps}) > 1
    assert any(advantages)
    own_loss(loss_type, logps, old, advantages).backward()
    ours = {name: value.grad for name, value in trainer.model.named_parameters()}
    trained = [name for name, value in policy.named_parameters() if value.grad is not None]
    assert len(trained) > 20
    for name, value in policy.named_parameters():
        if name in trained:
            torch.testing.assert_close(ours[name], value.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_the_kl_is_k3_to_the_reference(tmp_path: Path):
    trainer = make_trainer(Seq2SeqGRPOTrainer, tmp_path, "bart_forced", beta=0.05, use_bias_correction_kl=False)
    head = trainer.model.lm_head.weight
    head.data += 0.1 * torch.randn(head.shape, generator=torch.Generator().manual_seed(0))
    trainer.model.train()
    batch = trainer._generate_and_score_completions([dataset()[1]] * 4 + [dataset()[2]] * 4)
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(trainer.model, batch)
    current, reference = (
        own_logps(each.eval(), "bart_forced", batch) for each in (trainer.model, model("bart_forced"))
    )
    values = torch.cat([k3(after, before) for after, before in zip(reference, current, strict=True)]).tolist()
    assert trainer._metrics["train"]["kl"][-1] == pytest.approx(sum(values) / len(values), rel=1e-3)
    assert sum(values) > 1e-3


@pytest.mark.parametrize("credit", ["entropy_filter", ["entropy_filter", "shuffled_weights"], "random_filter"])
def test_credit_of_text_works_and_its_entropy_is_that_of_the_decoder(credit: Any, tmp_path: Path):
    seen: list[Rollout] = []
    trainer = make_trainer(Seq2SeqGRPOTrainer, tmp_path, "bart", credit=credit, num_iterations=2, max_steps=4)
    trainer.xp_listeners.append(seen.append)
    trainer.train()
    assert [rollout.step for rollout in seen] == [1, 3]
    assert 0 < seen[0].metrics["combined_token_fraction"] < 1
    if credit == "entropy_filter":
        record = seen[0].token_records[0]
        policy = model("bart")
        prompt = dataset()[int(record.prompt_id[1:])]["prompt"]
        texts = (prompt, "".join(record.tokens))
        document, completion = (tokenizer().convert_tokens_to_ids(text.split()) for text in texts)
        log_probs = alone(policy, "bart", document, completion, 1.0)
        expected = -(log_probs.exp() * log_probs).sum(dim=1)
        assert list(record.entropy) == pytest.approx(expected.tolist(), abs=1e-4)


def test_credit_from_images_is_refused_with_the_reason(tmp_path: Path):
    with pytest.raises(ValueError, match="perception_filter needs perception, which only a model that sees"):
        make_trainer(Seq2SeqGRPOTrainer, tmp_path, credit="perception_filter")


def test_rewards_logs_and_records_have_the_attention_on_the_document(tmp_path: Path):
    read: list[dict[str, float]] = []
    seen: list[Rollout] = []

    def attentive(completions: Any, completion_signals: list[dict[str, float]], **columns: Any) -> list[float]:
        read.extend(completion_signals)
        return [signals["attended_tokens/late"] for signals in completion_signals]

    measured, plain = (
        make_trainer(Seq2SeqGRPOTrainer, tmp_path / name, "bart", max_steps=1, signals=plan, **rewards)
        for name, plan, rewards in (
            ("measured", SignalPlan(attention=True), {"reward_funcs": [attentive]}),
            ("plain", None, {}),
        )
    )
    measured.xp_listeners.append(seen.append)
    measured.train()
    # The documents are words of one token each, of which attention is spread over one at least.
    assert all(1 <= signals["attended_tokens/late"] <= signals["text_tokens"] for signals in read)
    assert len({signals["text_tokens"] for signals in read}) > 1
    logged = measured.state.log_history[0]
    mean = sum(signals["attended_tokens/late"] for signals in read) / len(read)
    assert logged["attention/late/attended_tokens"] == logged["reward"] == pytest.approx(mean, rel=1e-5)
    for record in seen[0].token_records:
        assert record.document_tokens is not None
        assert record.document_attention is not None
        assert "".join(record.document_tokens) == dataset()[int(record.prompt_id[1:])]["prompt"]
        assert sum(record.document_attention) == pytest.approx(1, abs=1e-5)
    plain.train()
    assert "attention/late/attended_tokens" not in plain.state.log_history[0]


def test_attention_that_cannot_be_recorded_is_refused_before_training(tmp_path: Path):
    policy = model("bart")
    policy.config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match=r"signals.attention: true, but that of Bart.* set diagnostics.comp"):
        make_trainer(Seq2SeqGRPOTrainer, tmp_path, model=policy, signals=SignalPlan(attention=True))


def test_the_reward_rises_and_dropout_stays_off(tmp_path: Path):
    settings = {"max_steps": 12, "per_device_train_batch_size": 16, "learning_rate": 5e-2}
    trainer = make_trainer(Seq2SeqGRPOTrainer, tmp_path, reward_funcs=[even_digits], **settings)
    trainer.train()
    rewards = [line["reward"] for line in trainer.state.log_history if "reward" in line]
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 0.6
    ratios = [line["clip_ratio/region_mean"] for line in trainer.state.log_history if "reward" in line]
    assert ratios == [0.0] * 12


def test_a_group_of_beams_is_decoded_once_and_alike(tmp_path: Path):
    seen: list[Rollout] = []
    beams = {"num_beams": 4, "num_return_sequences": 4}
    trainer = make_trainer(Seq2SeqGRPOTrainer, tmp_path, "bart", generation_kwargs=beams, max_steps=1)
    trainer.xp_listeners.append(seen.append)
    trainer.train()
    (rollout,) = seen
    assert len(rollout.completions) == 8
    with pytest.raises(ValueError, match="num_return_sequences = num_generations 4"):
        make_trainer(Seq2SeqGRPOTrainer, tmp_path, "bart", generation_kwargs={"num_beams": 4})


def test_the_reference_can_follow_the_policy(tmp_path: Path):
    moving = {"sync_ref_model": True, "ref_model_sync_steps": 1, "ref_model_mixup_alpha": 1.0}
    trainer = make_trainer(Seq2SeqGRPOTrainer, tmp_path, "t5", beta=0.05, **moving)
    trainer.train()
    start = model("t5").state_dict()
    policy = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    for name, value in trainer.accelerator.unwrap_model(trainer.ref_model).state_dict().items():
        torch.testing.assert_close(value, policy[name], rtol=0, atol=0, msg=name)
    assert any(not torch.equal(value, start[name]) for name, value in policy.items())


def test_a_batch_of_several_steps_keeps_the_policy_that_sampled_it(tmp_path: Path):
    seen: list[Rollout] = []
    trainer = make_trainer(Seq2SeqGRPOTrainer, tmp_path, "t5", steps_per_generation=3, max_steps=6, learning_rate=0.03)
    trainer.xp_listeners.append(seen.append)
    trainer.train()
    assert [rollout.step for rollout in seen] == [1, 4]  # the old policy is that of steps 1 and 4
    clipped = [step["clip_ratio/region_mean"] for step in trainer.state.log_history if "clip_ratio/region_mean" in step]
    assert clipped[0] == clipped[3] == 0  # there the ratios are 1
    assert max(clipped) > 0


def test_summaries_in_chinese_are_rewarded(tmp_path: Path):
    digits = "零一二三四五六七八九"
    texts = [f"count {digit}" for digit in digits]
    rows = [{"prompt": text, "prompt_id": text, "answer": f"{digits}。"} for text in texts]
    arguments = {"processing_class": tokenizer(digits), "train_dataset": Dataset.from_list(rows)}
    trainer = make_trainer(Seq2SeqGRPOTrainer, tmp_path, reward_funcs=[trl_reward("rouge_average")], **arguments)
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["rewards/rouge_average/mean"] > 0.05
    assert first["rewards/rouge_average/metrics/rouge1"] > first["rewards/rouge_average/metrics/rouge2"]


def test_adapters_train_alone_and_their_reference_is_the_base_model(tmp_path: Path):
    adapters = LoraConfig(r=2, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")
    trainer = make_trainer(Seq2SeqGRPOTrainer, tmp_path, peft_config=adapters, beta=0.1)
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    changed = {name for name, value in trainer.model.named_parameters() if not torch.equal(before[name], value)}
    assert changed
    assert all("lora_" in name for name in changed)
    logged = [line["kl"] for line in trainer.state.log_history if "kl" in line]
    assert logged[0] == pytest.approx(0, abs=1e-6)
    assert logged[-1] > 1e-4


def bad_tokenizer(padding: str | None) -> Any:
    without = tokenizer()
    without.pad_token = padding
    return without


BLANK_TURN = [{"role": "user", "content": " "}]
BLANK_PARTS = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " "}]}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "causal"}, "got LlamaForCausalLM, a causal model; expected an encoder-decoder"),
        ({"processing_class": bad_tokenizer(None)}, "has no padding token, with which the encoder's batches are"),
        ({"processing_class": bad_tokenizer(tokenizer().eos_token)}, "has no padding token of its own, with which"),
        ({"max_completion_length": 24}, "the decoder of BartForConditionalGeneration has 24 positions, 1 of which"),
        ({"train_dataset": Dataset.from_list([{"prompt": " "}] * 4)}, "row 0: prompt: got ' ', an empty document"),
        ({"train_dataset": Dataset.from_list([{"prompt": BLANK_TURN}] * 4)}, r"row 0: prompt: got \[\{.*an empty doc"),
        ({"train_dataset": Dataset.from_list([{"prompt": BLANK_PARTS}] * 4)}, r"row 0: prompt: got \[\{.*an empty d"),
    ],
    ids=["causal", "no padding", "padding by the end token", "positions", "empty", "empty turn", "empty parts"],
)
def test_bad_input_is_refused_before_training(changes: dict[str, Any], message: str, tmp_path: Path):
    if changes.get("model"):
        changes = {"model": tiny_lm.model()}
    with pytest.raises(ValueError, match=message):
        make_trainer(Seq2SeqGRPOTrainer, tmp_path, "bart", **changes)


def test_a_model_without_a_start_token_is_refused(tmp_path: Path):
    policy = model("t5")
    policy.config.decoder_start_token_id = policy.generation_config.decoder_start_token_id = None
    with pytest.raises(ValueError, match="has no decoder_start_token_id"):
        make_trainer(Seq2SeqGRPOTrainer, tmp_path, model=policy)


def test_the_causal_trainer_refuses_encoder_decoders(tmp_path: Path):
    with pytest.raises(ValueError, match=r"got BartForConditionalGeneration, an encoder-decoder.*Seq2SeqGRPOTrainer"):
        make_trainer(CreditGRPOTrainer, tmp_path, "bart")


def test_conversations_are_documents_of_their_turns_without_a_chat_template(tmp_path: Path):
    turns = [{"role": "system", "content": "count"}, {"role": "user", "content": [{"type": "text", "text": " 3 4"}]}]
    trainer = make_trainer(Seq2SeqGRPOTrainer, tmp_path)
    assert trainer._tokenize_prompts([turns])[0] == [[3, 7, 8]]
    trainer._tokenizer.chat_template = "{% for turn in messages[:1] %}{{ turn['content'] }}{% endfor %}"
    assert trainer._tokenize_prompts([turns])[0] == [[3]]


def test_long_documents_lose_their_end(tmp_path: Path):
    trainer = make_trainer(Seq2SeqGRPOTrainer, tmp_path, "bart")
    (ids,), _, _ = trainer._tokenize_prompts(["count " + "1 " * 40])
    assert ids == [3, *[5] * 23]
