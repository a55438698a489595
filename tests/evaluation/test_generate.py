import json
import math
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import transformers
from PIL import Image

from rlassay import ranks
from rlassay.config import Study
from rlassay.evaluation import generate
from rlassay.evaluation.by_transformers import _decoded, decode_batch
from rlassay.evaluation.decoding import Decoded, Decoding
from rlassay.evaluation.generate import Answerer, WorkFile, plan_batches, run_generate
from rlassay.evaluation.score import run_score
from rlassay.layout import Layout
from rlassay.models.hub import Model, Processor
from rlassay.models.policy import ChatFormat, build_policy
from rlassay.models.tiny import build_tiny_vlm
from rlassay.records import CompletionRow, read_rows, write_rows
from rlassay.training.sft import run_sft
from tests.evaluation.tiny import NUM_TEST, layout_with_data, only, tiny_study
from tests.models.hubs import SMALLEST, TEXTS, hub, row, text_model, vision_model


@pytest.fixture(scope="module")
def study() -> Study:
    return tiny_study()


@pytest.fixture(scope="module")
def answered(study, tmp_path_factory) -> Layout:
    layout = layout_with_data(tmp_path_factory.mktemp("answered") / "results")
    run_sft(study, layout, only(study, "sft"))
    run_generate(study, layout, only(study, "sft"), "test")
    run_generate(study, layout, only(study, "model"), "test")
    return layout


def completions(layout: Layout, study: Study, stage: str = "model") -> list[CompletionRow]:
    return list(read_rows(layout.completions(only(study, stage).folder, "test"), CompletionRow))


def test_every_prompt_is_answered_as_often_as_asked(answered, study):
    keys = [(each.prompt_id, each.mode, each.sample) for each in completions(answered, study)]

    assert keys == [(f"test{index}", "sampled", sample) for index in range(NUM_TEST) for sample in (0, 1)] + [
        (f"test{index}", "greedy", 0) for index in range(NUM_TEST)
    ]


def test_the_warm_start_answers_with_its_own_weights(answered, study):
    trained = [each.text for each in completions(answered, study, "sft")]

    assert trained != [each.text for each in completions(answered, study)]


def test_progress_is_watched_once_the_policy_is_open(tmp_path, monkeypatch):
    progress, seen = ranks.Progress(), []
    monkeypatch.setattr(ranks, "PROGRESS", progress)

    class Watching:
        def require_room(self, batches):
            seen.append(progress._watched)

        def answer(self, batch):
            seen.append(progress._watched)
            return []

    @contextmanager
    def opening():
        seen.append(progress._watched)
        yield Watching()

    with WorkFile(tmp_path / "part", "key") as work:
        generate.answer_share(work, [generate.Batch(number=0, mode="greedy", items=())], opening(), "title")
    assert seen == [0, 1, 1]
    assert progress._watched == 0


def test_the_working_file_is_removed(answered, study):
    names = {path.name for path in answered.completions(only(study, "model").folder, "test").parent.iterdir()}

    assert names == {"test.completions.jsonl", "test.sampler.json"}
    facts = json.loads(answered.sampler(only(study, "model").folder, "test").read_text())
    assert facts["engine"] == "transformers"
    assert facts["versions"] == {"torch": torch.__version__, "transformers": transformers.__version__}


def test_a_killed_job_resumes_and_gives_the_same_file(answered, study, tmp_path, monkeypatch):
    layout = layout_with_data(tmp_path / "results")
    target = layout.completions(only(study, "model").folder, "test")
    done: list[int] = []

    def dying(answerer: Answerer, batch: generate.Batch) -> list[CompletionRow]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(batch.number)
        return Answerer.answer(answerer, batch)

    with monkeypatch.context() as patched:
        patched.setattr(generate, "Answerer", type("Dying", (Answerer,), {"answer": dying}))
        with pytest.raises(KeyboardInterrupt):
            run_generate(study, layout, only(study, "model"), "test")
    assert not target.exists()
    again = _counting(monkeypatch)

    run_generate(study, layout, only(study, "model"), "test")

    assert target.read_bytes() == answered.completions(only(study, "model").folder, "test").read_bytes()
    assert done == [0, 1]
    assert again == [2, 3, 4]  # 10 sampled completions in batches of 4, then 5 greedy ones


def test_a_finished_job_that_was_killed_before_its_rename_loads_no_model(study, tmp_path, monkeypatch):
    layout = _killed_before_its_rename(study, tmp_path / "results", monkeypatch)
    monkeypatch.setattr(generate, "build_policy", _vanish)

    run_generate(study, layout, only(study, "model"), "test")

    assert len(completions(layout, study)) == 3 * NUM_TEST


def test_seeds_sample_differently_and_decode_greedily_alike(study, tmp_path):
    layout = layout_with_data(tmp_path / "results")
    other = tiny_study(evaluation__seed=7)
    run_generate(study, layout, only(study, "model"), "test")
    first = completions(layout, study)
    run_generate(other, layout, only(other, "model"), "test")
    second = completions(layout, other)

    assert [each for each in first if each.mode == "greedy"] == [each for each in second if each.mode == "greedy"]
    assert [each for each in first if each.mode == "sampled"] != [each for each in second if each.mode == "sampled"]


def test_answers_of_changed_rows_are_not_kept(study, tmp_path, monkeypatch):
    layout = _killed_before_its_rename(study, tmp_path / "results", monkeypatch)
    rows = [row.model_copy(update={"question": "Which?"}) for row in read_rows(layout.split("test"))]
    write_rows(layout.split("test"), rows)
    again = _counting(monkeypatch)

    run_generate(study, layout, only(study, "model"), "test")

    assert again == [0, 1, 2, 3, 4]


def test_a_batch_holds_batch_size_completions_of_one_mode(study, answered):
    rows = list(read_rows(answered.split("test")))
    batches = plan_batches(rows, study.evaluation)

    assert [(batch.mode, len(batch.items)) for batch in batches] == [
        ("sampled", 4),
        ("sampled", 4),
        ("sampled", 2),
        ("greedy", 4),
        ("greedy", 1),
    ]


def test_greedy_decoding_can_be_left_out(answered):
    evaluation = tiny_study(evaluation__greedy=False).evaluation

    assert {batch.mode for batch in plan_batches(list(read_rows(answered.split("test"))), evaluation)} == {"sampled"}


def test_a_policy_without_weights_is_named(study, tmp_path):
    with pytest.raises(ValueError, match=r"runs/base/seed1 is not trained yet: there is no .*train.json"):
        run_generate(study, layout_with_data(tmp_path / "results"), only(study, "rl"), "test")


def test_damaged_weights_are_named(study, tmp_path):
    layout = layout_with_data(tmp_path / "results")
    policy = only(study, "sft")
    manifest = layout.train_manifest(policy.folder, policy.stage)
    (manifest.parent / "state/weights").mkdir(parents=True)
    manifest.write_text(json.dumps({"weights": "state/weights"}))

    with pytest.raises(ValueError, match=r"state/weights: no policy here"):
        run_generate(study, layout, policy, "test")


def _vanish(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def _killed_before_its_rename(study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Results of a job that has answered every prompt, and was killed before it renamed its file."""
    layout = layout_with_data(folder)
    with monkeypatch.context() as patched:
        patched.setattr(generate, "write_rows", _vanish)
        with pytest.raises(KeyboardInterrupt):
            run_generate(study, layout, only(study, "model"), "test")
    return layout


def _counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects the numbers of the batches answered from now on."""
    numbers: list[int] = []

    def counting(answerer: Answerer, batch: generate.Batch) -> list[CompletionRow]:
        numbers.append(batch.number)
        return Answerer.answer(answerer, batch)

    monkeypatch.setattr(generate, "Answerer", type("Counting", (Answerer,), {"answer": counting}))
    return numbers


def test_signals_that_a_reward_reads_are_measured_and_scored(tmp_path):
    rewards = {"modality_balance": {"weight": 1.0, "options": {"ratio": 40.0}}}
    study = tiny_study(rewards=rewards, primary__metric="modality_balance", arms={"base": {"label": "base"}})
    layout = layout_with_data(tmp_path)
    policy = only(study, "model")
    run_generate(study, layout, policy, "test")
    run_score(study, layout, policy, "test")
    answers = list(read_rows(layout.completions(policy.folder, "test"), CompletionRow))
    rows = pq.read_table(layout.scores(policy.folder, "test")).to_pylist()
    scores = {
        (row["prompt_id"], row["mode"], row["sample"]): row for row in rows if row["metric"] == "modality_balance"
    }
    assert len(answers) == len(scores) == 3 * NUM_TEST
    for answer in answers:
        dominance = answer.signals["modality_dominance/late"]
        balance = max(0.0, 1 - abs(math.log(dominance)) / math.log(40))
        value = scores[answer.prompt_id, answer.mode, answer.sample]["value"]
        assert value == pytest.approx(2 * balance - 1)
        assert answer.signals["vision_tokens"] == 16


GREEDY = Decoding(sampled=False, temperature=1.0, top_p=1.0, max_completion_length=8, seed=0)
SAMPLED = Decoding(sampled=True, temperature=1.0, top_p=1.0, max_completion_length=8, seed=5)
IMAGES = [Image.linear_gradient("L").rotate(90 * turn).resize((16, 16)).convert("RGB") for turn in range(4)]


def texts(*lengths: int) -> list[list[dict[str, str]]]:
    """Conversations of different lengths."""
    return [[{"role": "user", "content": "Which digit is larger? " * length}] for length in lengths]


def talkative(folder: Path) -> tuple[Model, Processor]:
    """A vision model with a random head: an untrained one, whose head is its embedding, repeats the last token."""
    model, processor = build_policy(hub(vision_model(folder)), [])
    head = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
    model.lm_head.weight = torch.nn.Parameter(head)
    return model, processor


def test_a_completion_ends_after_its_first_end_of_sequence_token():
    _, processor = build_tiny_vlm(SMALLEST, TEXTS)
    eos, pad = processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id
    a, b = processor.tokenizer.convert_tokens_to_ids(["A", "B"])
    ids = torch.tensor([[a, eos, b, eos], [a, b, a, b], [a, b, b, eos], [eos, pad, pad, pad]])

    assert _decoded(ids, processor, [eos]) == [
        Decoded(ids=[a, eos], text="A", finished=True),
        Decoded(ids=[a, b, a, b], text="ABAB", finished=False),
        Decoded(ids=[a, b, b, eos], text="ABB", finished=True),
        Decoded(ids=[eos], text="", finished=True),
    ]


def test_greedy_completions_do_not_depend_on_the_seed_or_the_repetition(tmp_path):
    model, processor = build_policy(hub(text_model(tmp_path)), [])
    prompts = texts(1, 2, 1, 2)
    first = decode_batch(model, processor, prompts, [[]] * 4, GREEDY)

    assert first[:2] == first[2:]
    assert decode_batch(model, processor, prompts, [[]] * 4, GREEDY) == first


def test_left_padding_changes_nothing(tmp_path):
    model, processor = build_policy(hub(text_model(tmp_path)), [])
    together = decode_batch(model, processor, texts(1, 4, 9), [[]] * 3, GREEDY)
    alone = [decode_batch(model, processor, [prompt], [[]], GREEDY)[0] for prompt in texts(1, 4, 9)]

    assert together == alone
    assert len({each.text for each in together}) > 1


def test_every_prompt_keeps_its_own_images(tmp_path):
    model, processor = talkative(tmp_path)
    prompts = [ChatFormat(processor=processor, with_format_instruction=False).prompt(row(image="x"))] * 4
    together = decode_batch(model, processor, prompts, [[image] for image in IMAGES], GREEDY)
    alone = [decode_batch(model, processor, prompts[:1], [[image]], GREEDY)[0] for image in IMAGES]

    assert together == alone
    assert len({each.text for each in together}) > 1


def test_the_seed_decides_the_samples(tmp_path):
    model, processor = build_policy(hub(text_model(tmp_path)), [])
    prompts = texts(1, 1, 1)
    first = decode_batch(model, processor, prompts, [[]] * 3, SAMPLED)
    torch.manual_seed(1)

    assert decode_batch(model, processor, prompts, [[]] * 3, SAMPLED) == first
    assert len({each.text for each in first}) == 3


def test_the_models_own_sampling_defaults_do_not_reach_the_evaluation(tmp_path):
    model, processor = build_policy(hub(text_model(tmp_path)), [])
    first = decode_batch(model, processor, texts(1, 1), [[]] * 2, SAMPLED)
    model.generation_config.update(top_k=1, temperature=0.1, repetition_penalty=9.0, top_p=0.1)

    assert decode_batch(model, processor, texts(1, 1), [[]] * 2, SAMPLED) == first


def test_an_image_token_is_never_sampled(tmp_path):
    model, processor = talkative(tmp_path)
    prompts = [ChatFormat(processor=processor, with_format_instruction=False).prompt(row(image="x"))]
    loves_images = torch.zeros(model.config.text_config.vocab_size)
    loves_images[processor.image_token_id] = 1e4
    model.lm_head.register_forward_hook(lambda _, __, logits: logits + loves_images)

    (completion,) = decode_batch(model, processor, prompts, [[IMAGES[0]]], GREEDY)

    assert len(completion.ids) > 0
    assert completion.text != ""


ROW = CompletionRow(prompt_id="p", mode="sampled", sample=0, text="<answer>B</answer>", token_count=4, finished=True)


def test_finished_batches_outlive_the_process(tmp_path):
    with WorkFile(tmp_path / "work", "key") as work:
        work.add(3, [ROW])

    with WorkFile(tmp_path / "work", "key") as work:
        assert work.done == {3: [ROW]}


def test_batches_of_another_key_are_ignored(tmp_path):
    with WorkFile(tmp_path / "work", "key") as work:
        work.add(3, [ROW])

    with WorkFile(tmp_path / "work", "other") as work:
        assert work.done == {}


def test_a_torn_line_loses_only_its_own_batch(tmp_path):
    path = tmp_path / "work"
    with WorkFile(path, "key") as work:
        work.add(1, [ROW])
        work.add(2, [ROW])
    path.write_bytes(path.read_bytes()[:-40])

    with WorkFile(path, "key") as work:
        assert work.done == {1: [ROW]}
        work.add(2, [ROW])

    with WorkFile(path, "key") as work:
        assert work.done == {1: [ROW], 2: [ROW]}


def test_lines_that_are_not_batches_are_ignored(tmp_path):
    (tmp_path / "work").write_text('[1]\n{"key": "key"}\n{"key": "key", "batch": 1, "rows": [{"text": 1}]}\nnull\n')

    with WorkFile(tmp_path / "work", "key") as work:
        assert work.done == {}
