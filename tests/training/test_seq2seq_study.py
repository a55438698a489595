"""Encoder-decoders through all stages of a study, from rows to scores."""

import json
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoTokenizer, MBart50Tokenizer, MBartTokenizer

from rlassay.config import StudyError
from rlassay.config.load import resolve_study
from rlassay.config.model import HubModel, Lora, TinySeq2Seq
from rlassay.config.policies import policies
from rlassay.config.study import Study
from rlassay.config.training import SFTConfig
from rlassay.evaluation.by_transformers import decode_batch
from rlassay.evaluation.decoding import Decoding
from rlassay.evaluation.generate import run_generate
from rlassay.evaluation.score import run_score
from rlassay.layout import Layout
from rlassay.models.policy import ChatFormat, build_policy, chat_format, load_policy
from rlassay.models.seq2seq import DOCUMENT_TEMPLATE, decoder_prefix, document_ids, label_ids
from rlassay.records import PromptRow, read_rows, write_rows
from rlassay.training.rl import run_rl
from rlassay.training.sft import run_sft, seq2seq_trainer, sft_arguments
from tests.launcher import Launcher, wait_until
from tests.training import tiny_seq2seq

SENTENCES = ("The array is sorted in place.", "A copy is returned.", "The mean of each row is subtracted from it.")


def rows(count: int) -> list[PromptRow]:
    """Documents of different lengths, whose summary is their first sentence."""
    made: list[PromptRow] = []
    for index in range(count):
        first, *others = SENTENCES[index % 3 :] + SENTENCES[: index % 3 + index % 2]
        text = " ".join([first, f"Row {index}.", *others])
        made.append(PromptRow(prompt_id=f"p{index}", question=text, answer=first, demonstration=first))
    return made


def make_study(model: dict[str, Any], **changes: Any) -> Study:
    """The study of `short_content`."""
    return resolve_study(short_content(model, **changes))


def short_content(model: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The file of a study of one arm whose reward is the overlap with the summary."""
    content: dict[str, Any] = {
        "name": "short",
        "title": "t",
        "question": "q",
        "seeds": [1],
        "model": model,
        "data": {"kind": "docstrings", "packages": ["numpy"], "splits": {"sft": 6, "train": 6, "test": 3}},
        "sft": {"max_steps": 4, "learning_rate": 2e-3, "per_device_train_batch_size": 4, "save_steps": 2},
        "rl": {
            "max_steps": 2,
            "learning_rate": 1e-3,
            "per_device_train_batch_size": 8,
            "num_generations": 4,
            "max_completion_length": 6,
            "save_steps": 1,
        },
        "rewards": {"rouge_average": {"weight": 1.0}, "soft_overlong": SHORT},
        "evaluation": {"num_samples": 2, "max_completion_length": 6},
        "primary": {"metric": "rouge_average"},
        "baseline": "base",
        "arms": {"base": {}},
    }
    return content | changes


RL = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 6, "save_steps": 1}
SHORT = {"weight": 1.0, "options": {"max_completion_length": 6, "cache": 4}}


def run(study: Study, root: Path) -> Layout:
    """The layout after every stage of the study on `rows`."""
    layout = Layout(root=root)
    for name, count in (("sft", 6), ("train", 6), ("test", 3)):
        write_rows(layout.split(name), rows(count))
    for policy in policies(study).values():
        if policy.stage != "model":
            {"sft": run_sft, "rl": run_rl}[policy.stage](study, layout, policy)
        run_generate(study, layout, policy, "test")
        run_score(study, layout, policy, "test")
    return layout


def test_the_built_in_model_goes_through_every_stage(tmp_path: Path):
    study = make_study({"kind": "tiny_seq2seq", "layers": 1, "width": 32})
    layout = run(study, tmp_path)
    trained = {policy.stage: policy for policy in policies(study).values()}
    assert set(trained) == {"model", "sft", "rl"}
    scores = pq.read_table(layout.scores(trained["rl"].folder, "test")).to_pylist()
    assert {row["mode"] for row in scores if row["metric"] == "rouge_average"} == {"sampled", "greedy"}
    completions = [each for each in layout.completions(trained["rl"].folder, "test").read_text().splitlines() if each]
    assert len(completions) == 3 * 3
    shards = sorted(layout.rollouts(trained["rl"].folder).glob("*.parquet"))
    assert sum(len(pq.read_table(shard)) for shard in shards) == 16


def test_credit_of_text_and_rewards_that_read_signals_go_through_a_study(tmp_path: Path):
    (tmp_path / "mine.py").write_text("def focus(item):\n    return 1 / item['signals']['attended_tokens/late']\n")
    focus = {"kind": "custom", "weight": 1.0, "path": f"{tmp_path / 'mine.py'}:focus"}
    credit = [{"kind": "entropy_filter", "fraction": 0.5}, {"kind": "shuffled_weights"}]
    study = make_study(
        {"kind": "tiny_seq2seq", "layers": 1, "width": 32},
        sft=None,
        credit=credit,
        rewards={"focus": focus},
        primary={"metric": "focus"},
    )
    layout = Layout(root=tmp_path / "results")
    write_rows(layout.split("train"), rows(6))
    of_rl = next(policy for policy in policies(study).values() if policy.stage == "rl")
    run_rl(study, layout, of_rl)
    assert all(0 < step["combined_token_fraction"] < 1 for step in steps(layout, of_rl.folder))
    assert "| late |" in (layout.state(of_rl.folder) / "attention_diagnostics.md").read_text()
    documents = {row.prompt_id: row.question for row in rows(6)}
    shards = [pq.read_table(shard) for shard in sorted(layout.tokens(of_rl.folder).glob("*.parquet"))]
    for row in [row for shard in shards for row in shard.to_pylist()]:
        assert "".join(row["document_tokens"]) == documents[row["prompt_id"]]
        assert len(row["document_attention"]) == len(row["document_tokens"])
        assert sum(row["document_attention"]) == pytest.approx(1, abs=1e-5)  # no control tokens in this document
    for row in [
        row for each in sorted(layout.rollouts(of_rl.folder).iterdir()) for row in pq.read_table(each).to_pylist()
    ]:
        assert row["raw.focus"] == pytest.approx(1 / row["signal.attended_tokens/late"], rel=1e-5)


@pytest.mark.parametrize("kind", ["tiny_seq2seq", "tiny_lm"])
def test_adapters_on_a_built_in_model_find_it_again_without_a_warm_start(kind: str, tmp_path: Path):
    study = make_study({"kind": kind, "layers": 1, "width": 32, "lora": {"r": 2}}, sft=None)
    layout = Layout(root=tmp_path)
    write_rows(layout.split("train"), rows(6))
    of_rl = next(policy for policy in policies(study).values() if policy.stage == "rl")
    run_rl(study, layout, of_rl)
    manifest = json.loads(layout.train_manifest(of_rl.folder, "rl").read_text())
    model, _ = load_policy(of_rl.recipe.model, layout.root / of_rl.folder / manifest["weights"])
    assert isinstance(model, PeftModel)
    untrained, _ = build_policy(of_rl.recipe.model, rows(6))
    base = model.get_base_model().state_dict()
    for name, value in untrained.state_dict().items():
        adapted = name if name in base else name.replace(".weight", ".base_layer.weight")
        assert torch.equal(base[adapted], value), name


def test_beams_are_those_of_a_plain_generate_call_with_the_models_own_settings(tmp_path: Path):
    section = bart(tmp_path / "bart", None)
    changes = {"rl": {"max_steps": 1, "learning_rate": 1e-3, "beam_sampling": True} | RL, "sft": None}
    beams = {"evaluation": {"num_samples": 1, "max_completion_length": 6, "greedy": False, "beams": {"num_beams": 3}}}
    study = make_study(section, **changes, **beams)
    layout = run(study, tmp_path / "results")
    untrained, trained = (each.folder for each in policies(study).values())
    model, tokenizer = build_policy(study.arms["base"].recipe.model, rows(3))
    inputs = tokenizer([row.question for row in rows(3)], padding=True, return_tensors="pt")
    own = {"num_beams": 3, "max_new_tokens": 7, "length_penalty": 0.5, "no_repeat_ngram_size": 2}
    expected = tokenizer.batch_decode(model.generate(**inputs, **own), skip_special_tokens=True)
    lines = [json.loads(line) for line in layout.completions(untrained, "test").read_text().splitlines()]
    assert [line["text"] for line in lines if line["mode"] == "beams"] == expected
    scores = pq.read_table(layout.scores(trained, "test")).to_pylist()
    parts = {row["metric"] for row in scores if row["mode"] == "beams" and row["metric"].startswith("rouge_average/")}
    assert parts == {f"rouge_average/{each}" for each in ("rouge1", "rouge2", "rougeL", "rougeLsum")}
    assert [0 < step["completions/frac_distinct"] <= 1 for step in steps(layout, trained)] == [True]


def test_killed_and_resumed_it_ends_with_the_weights_of_an_uninterrupted_run(launcher: Launcher, tmp_path: Path):
    rl = RL | {"max_steps": 40, "learning_rate": 1e-3, "save_steps": 2, "beta": 0.05}
    content = short_content(bart(tmp_path / "bart", None), rl=rl, sft=None)
    study = resolve_study(content)
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(content))
    of_rl = next(policy for policy in policies(study).values() if policy.stage == "rl")
    killed, whole = (Layout(root=tmp_path / name / study.id) for name in ("killed", "whole"))
    for layout in (killed, whole):
        write_rows(layout.split("train"), rows(6))
    arguments = [
        "--study",
        str(tmp_path / "short.yaml"),
        "--results",
        str(tmp_path / "killed"),
        "--policy",
        of_rl.folder,
    ]
    attempt = launcher.start(["rl_train", *arguments], tmp_path / "log")
    wait_until(lambda: len(steps(killed, of_rl.folder)) > 4)
    attempt.send(signal.SIGKILL)
    assert attempt.wait() == -signal.SIGKILL
    for layout in (killed, whole):
        run_rl(study, layout, of_rl)
    resumed, uninterrupted = (
        json.loads(layout.train_manifest(of_rl.folder, "rl").read_text()) for layout in (killed, whole)
    )
    assert [each["step"] > 0 for each in resumed["resumes"]] == [True]
    assert resumed["sha256"] == uninterrupted["sha256"]
    assert [step["loss"] for step in steps(killed, of_rl.folder)] == [
        step["loss"] for step in steps(whole, of_rl.folder)
    ]


def test_what_encoder_decoders_lack_is_named_before_any_job():
    gae = RL | {"max_steps": 1, "learning_rate": 1e-3, "advantage": {"kind": "gae"}}
    balance = {"rouge_average": {"weight": 1.0}, "modality_balance": {"weight": 1.0}}
    with pytest.raises(StudyError) as caught:
        make_study({"kind": "tiny_seq2seq"}, rl=gae, rewards=balance, credit=[{"kind": "perception_filter"}])
    expected = (
        "credit.0: perception_filter needs an image, but model.kind tiny_seq2seq reads text only; leave it out",
        "rewards.modality_balance: not available for encoder-decoders; leave it out",
        "rl.advantage: gae: not available for encoder-decoders; leave it out",
    )
    assert all(sentence in str(caught.value) for sentence in expected)


def steps(layout: Layout, policy: str) -> list[dict[str, Any]]:
    """The logged steps of a run, without the summary of the training."""
    path = layout.metrics(policy)
    lines = path.read_text().splitlines() if path.exists() else []
    return [step for step in map(json.loads, lines) if "loss" in step]


def test_adapters_follow_a_warm_start_of_all_weights_that_other_arms_share():
    lora = {"r": 2, "target_modules": ["q", "v"], "in_warm_start": False}
    arms = {"base": {}, "lora": {"varies": ["model.lora"], "model": {"lora": lora}}}
    study = make_study({"kind": "tiny_seq2seq"}, arms=arms)
    assert [each.stage for each in policies(study).values()] == ["model", "sft", "rl", "rl"]
    assert study.arms["lora"].recipe.warm_start_model == study.arms["base"].recipe.model


def bart(folder: Path, lora: Lora | None) -> dict[str, Any]:
    """A model section for a random BART whose tokenizer has bytes, saved like a model of the hub."""
    _, tokenizer = build_policy(TinySeq2Seq(kind="tiny_seq2seq", layers=1, width=32), rows(6))
    from transformers import BartConfig, BartForConditionalGeneration

    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=40,
        max_position_embeddings=80,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=1,
        decoder_start_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = BartForConditionalGeneration(config)
    model.generation_config.forced_bos_token_id = 2
    model.generation_config.num_beams = 2  # as checkpoints for summaries have
    model.generation_config.length_penalty = 0.5
    model.generation_config.no_repeat_ngram_size = 2
    model.save_pretrained(folder)
    tokenizer.chat_template = None  # models of the hub have none
    tokenizer.save_pretrained(folder)
    return HubModel(kind="hub", architecture="seq2seq", name=str(folder), dtype="float32", lora=lora).model_dump(
        mode="json"
    )


def test_adapters_of_a_hub_model_are_trained_saved_and_evaluated(tmp_path: Path):
    lora = Lora(r=2, target_modules=("q_proj", "k_proj", "v_proj"))
    study = make_study(bart(tmp_path / "bart", lora))
    layout = run(study, tmp_path / "results")
    recipe = study.arms["base"].recipe
    of_rl = next(policy for policy in policies(study).values() if policy.stage == "rl")
    manifest = json.loads(layout.train_manifest(of_rl.folder, "rl").read_text())
    model, processor = load_policy(recipe.model, layout.root / of_rl.folder / manifest["weights"])
    assert isinstance(model, PeftModel)
    prompts = [chat_format(processor, recipe).prompt(row) for row in rows(3)]
    how = Decoding(sampled=False, temperature=1.0, top_p=1.0, max_completion_length=6, seed=0)
    answers = [each.text for each in decode_batch(model, processor, prompts, [[]] * 3, how)]
    lines = [json.loads(line) for line in layout.completions(of_rl.folder, "test").read_text().splitlines()]
    assert answers == [line["text"] for line in lines if line["mode"] == "greedy"]


@pytest.mark.parametrize("shape", tiny_seq2seq.SHAPES)
def test_labels_begin_with_the_forced_token_and_end_with_the_end_token(shape: str):
    model, tokenizer = tiny_seq2seq.model(shape), tiny_seq2seq.tokenizer()
    forced = [2] if shape == "bart_forced" else []
    assert label_ids(model, tokenizer, ["5 6", "7"]) == [[*forced, 9, 10, 1], [*forced, 11, 1]]
    assert document_ids(model, tokenizer, ["count 1"]) == [[3, 5]]


def test_language_codes_are_no_labels_but_the_prefix():
    words = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁one", -2.0), ("▁two", -2.0), ("▁", -3.0)]
    codes = {"src_lang": "en_XX", "tgt_lang": "ro_RO"}
    first: Any = MBartTokenizer(vocab=words, **codes)
    later: Any = MBart50Tokenizer(vocab=words, **codes)
    assert first(text_target="one two")["input_ids"] == [4, 5, 2, first.convert_tokens_to_ids("ro_RO")]
    policy = tiny_seq2seq.model("mbart")
    assert label_ids(policy, first, ["one two", "two"]) == [[4, 5, 2], [5, 2]]
    forced = policy.generation_config.forced_bos_token_id = later.convert_tokens_to_ids("ro_RO")
    one, two, end = later.convert_tokens_to_ids(["▁one", "▁two", "</s>"])
    assert later(text_target="one two")["input_ids"] == [forced, one, two, end]
    assert label_ids(policy, later, ["one two", "two"]) == [[forced, one, two, end], [forced, two, end]]
    policy.generation_config.forced_bos_token_id = other = later.convert_tokens_to_ids("fr_XX")
    assert label_ids(policy, later, ["two"]) == [[other, two, end]]
    policy.generation_config.forced_bos_token_id = None
    assert label_ids(policy, later, ["two"]) == [[forced, two, end]]  # it is sampled then, so that it is learned


@pytest.mark.parametrize("shape", tiny_seq2seq.SHAPES)
def test_the_warm_start_reads_the_prefix_and_learns_what_comes_after(shape: str, tmp_path: Path):
    model, processor = tiny_seq2seq.model(shape), tiny_seq2seq.tokenizer()
    processor.chat_template = DOCUMENT_TEMPLATE
    pairs = [
        PromptRow(prompt_id=text, question="count 1", answer=text, demonstration=text) for text in ("5 6 7", "8", "")
    ]
    chats = ChatFormat(processor=processor, with_format_instruction=False)
    config = SFTConfig(max_steps=1, learning_rate=1e-3, per_device_train_batch_size=3)
    arguments = sft_arguments(config, 0, tmp_path, on_cpu=True)
    trainer: Any = seq2seq_trainer(model, pairs, chats, arguments, None)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(3)])
    start, *forced = decoder_prefix(model)
    width = 4 + len(forced)
    learned = [[*forced, *ids, 1] for ids in ([9, 10, 11], [12], [])]
    assert batch["labels"].tolist() == [row + [-100] * (width - len(row)) for row in learned]
    for inputs, row in zip(batch["decoder_input_ids"].tolist(), learned, strict=True):
        assert inputs[: len(row)] == [start, *row[:-1]]
        assert set(inputs) <= set(range(len(tiny_seq2seq.WORDS)))


def test_the_built_in_model_copies_neighbours_from_the_start():
    model, tokenizer = build_policy(TinySeq2Seq(kind="tiny_seq2seq"), rows(6))
    assert 700_000 < sum(value.numel() for value in model.parameters()) < 1_000_000
    assert [row.prompt_id for row in rows(2)] == ["p0", "p1"]
    bias = model.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    assert bias.nonzero().tolist() == [[1, 0], [2, 1]]
    assert tokenizer.padding_side == "right"


def test_an_encoder_decoder_declared_a_causal_model_is_refused(tmp_path: Path):
    wrong = HubModel.model_validate(bart(tmp_path / "bart", None) | {"architecture": "causal"})
    with pytest.raises(
        StudyError, match=r"model.architecture: got causal, but .* is an encoder-decoder \(bart\); expect"
    ):
        build_policy(wrong, rows(3))


@pytest.mark.parametrize("padding", [None, "<eos>"])
def test_a_tokenizer_without_padding_is_refused_when_the_model_is_loaded(padding: str | None, tmp_path: Path):
    section = HubModel.model_validate(bart(tmp_path / "bart", None))
    tokenizer: Any = AutoTokenizer.from_pretrained(section.name)
    tokenizer.pad_token = padding
    tokenizer.save_pretrained(section.name)
    with pytest.raises(StudyError, match=r"model.name: .* has no padding token of its own, with which the encoder's"):
        build_policy(section, rows(3))


def test_scores_on_the_training_validation_and_test_sets(tmp_path: Path):
    splits = {"train": 6, "validation": 2, "test": 3}
    study = make_study(
        {"kind": "tiny_seq2seq", "layers": 1, "width": 32},
        sft=None,
        data={"kind": "docstrings", "packages": ["numpy"], "splits": splits},
        evaluation={"num_samples": 1, "max_completion_length": 6, "sets": list(splits)},
        primary={"set": "test", "metric": "rouge_average"},
    )
    layout = Layout(root=tmp_path)
    untrained = next(policy for policy in policies(study).values() if policy.stage == "model")
    for name, count in splits.items():
        write_rows(layout.split(name), rows(count))
        run_generate(study, layout, untrained, name)
        run_score(study, layout, untrained, name)
        scores = pq.read_table(layout.scores(untrained.folder, name)).to_pylist()
        found = [row["prompt_id"] for row in scores if (row["metric"], row["mode"]) == ("rouge_average", "greedy")]
        assert sorted(found) == [f"p{index}" for index in range(count)]


def test_a_demonstration_longer_than_the_decoder_is_refused_before_training(tmp_path: Path):
    study = make_study(bart(tmp_path / "bart", None))
    layout = Layout(root=tmp_path / "results")
    long = PromptRow(prompt_id="long", question="One.", answer="One.", demonstration="sorted " * 90)
    write_rows(layout.split("sft"), [*rows(3), long])
    write_rows(layout.split("train"), rows(3))
    assert len(list(read_rows(layout.split("sft")))) == 4
    warm_start = next(policy for policy in policies(study).values() if policy.stage == "sft")
    with pytest.raises(ValueError, match=r"prompt long: demonstration: got .* tokens, but the decoder has 80"):
        run_sft(study, layout, warm_start)
