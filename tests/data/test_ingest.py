"""Ingesting examples: records are read lazily, rejected ones leave nothing behind, long prompts are rejected."""

import io
import json

import pytest
from PIL import Image

from rlassay.config import StudyError
from rlassay.config.data import Jsonl, JsonlPrompts, PromptLimit
from rlassay.data.images import ImageStore
from rlassay.data.ingest import Ingestor, reading_order
from rlassay.data.outcomes import Accepted, Rejected
from rlassay.data.raw_examples import RawExample, RowRejectedError, Source, convert_each, rejecting
from rlassay.data.row_checks import content_id
from rlassay.models.hub import load_processor
from rlassay.models.prompt_length import count_tokens
from rlassay.records import Media, PromptRow, parse_row
from rlassay.rewards import gold
from tests.data.ingesting import ingest_all
from tests.models.hubs import text_model, vision_model


def ingestor_of(tmp_path, examples, **options):
    source = Source(examples={"train": lambda: iter(examples)}, **options)
    return Ingestor(source=source, images=ImageStore(tmp_path), too_long=lambda row, images, where: None)


def numbered(count, read):
    for number in range(count):
        read.append(number)
        yield RawExample(question=f"What is {number}?", answer=str(number))


def png(colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_record_is_read_when_its_outcome_is_requested(tmp_path):
    read = []
    outcomes = ingestor_of(tmp_path, numbered(1_000_000, read)).ingest_split("train", None)
    assert read == []
    for requested in range(1, 6):
        next(outcomes)
        assert len(read) == requested


def test_a_limit_stops_reading_at_the_last_row(tmp_path):
    read = []
    assert len(list(ingestor_of(tmp_path, numbered(9, read)).ingest_split("train", 3))) == 3
    assert read == [0, 1, 2]


def test_outcomes_of_an_earlier_attempt_are_skipped_and_counted(tmp_path):
    first = list(ingestor_of(tmp_path, numbered(9, [])).ingest_split("train", 4))
    ingestor = ingestor_of(tmp_path, numbered(9, []))
    done = (outcome for outcome in first[:3] if ingestor.restore(outcome, "train"))
    assert list(ingestor.ingest_split("train", 4, done)) == first[3:]
    # later rows are compared with a restored row, as if it had just been accepted
    repeated = ingestor_of(tmp_path, [RawExample(question="what is 1", answer="1")])
    repeated.restore(first[1], "train")
    assert [type(outcome) for outcome in repeated.ingest_split("train", None)] == [Rejected]


def test_a_rejected_row_leaves_nothing_behind(tmp_path, monkeypatch):
    """A row rejected by the gold check stores no image, and does not make another row a duplicate."""

    def blind_to_b(completions):
        return [float(completion.text == "A") for completion in completions]

    monkeypatch.setitem(gold.GOLD_CHECKED, "choice_accuracy", (blind_to_b, lambda row: row.answer))
    choices = ("cat", "dog")
    unpaid = RawExample(question="Which?", answer="B", choices=choices, images=(png("blue"),))
    paid = RawExample(question="Which?", answer="A", choices=choices, images=(png("blue"),))
    ingestor = ingestor_of(tmp_path, [unpaid, paid])
    outcomes = ingestor.ingest_split("train", None)
    assert isinstance(next(outcomes), Rejected)
    assert list(ingestor.images.folder.iterdir()) == []
    assert isinstance(next(outcomes), Accepted)
    assert len(list(ingestor.images.folder.iterdir())) == 1


@pytest.mark.parametrize("strict", [False, True])
def test_a_strict_source_counts_duplicates_and_raises_on_invalid_records(tmp_path, strict):
    examples = [
        RawExample(question="One?", answer="1", where="a:1"),
        RawExample(question="one", answer="1", where="a:2"),
        RawExample(question=" ", answer="1", where="a:3"),
        RowRejectedError("a:4: no JSON"),
        RawExample(question="Two?", answer="2", where="a:5"),
    ]
    outcomes = ingestor_of(tmp_path, examples, strict=strict).ingest_split("train", None)
    if not strict:
        assert [isinstance(outcome, Accepted) for outcome in outcomes] == [True, False, False, False, True]
        return
    assert isinstance(next(outcomes), Accepted)
    rejected = next(outcomes)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "duplicate: nearly the same prompt is in the split 'train'"
    assert (rejected.where, rejected.pair.match_row) == ("a:2", 0)
    with pytest.raises(StudyError) as caught:
        next(outcomes)
    assert caught.value.problems == ("a:3: question: it is blank", "a:4: no JSON")


def test_an_unexpected_error_about_one_record_rejects_that_record(tmp_path, monkeypatch):
    def broken(row):
        if row.question == "crash":
            raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("rlassay.data.row_checks.gold_refusal", broken)
    questions = [("One?", "a:1"), ("crash", "a:2"), ("Two?", "a:3")]
    examples = [RawExample(question=question, answer="1", where=where) for question, where in questions]
    first, second, third = ingestor_of(tmp_path, examples).ingest_split("train", None)
    assert second == Rejected(reason="unexpected ZeroDivisionError", where="a:2", detail="by nothing")
    assert isinstance(first, Accepted)
    assert isinstance(third, Accepted)
    with pytest.raises(StudyError) as caught:
        list(ingestor_of(tmp_path, examples, strict=True).ingest_split("train", None))
    assert caught.value.problems == ("a:2: unexpected ZeroDivisionError (by nothing)",)


def test_a_converter_that_fails_on_one_record_rejects_that_record():
    def convert(number):
        return RawExample(question="q", answer=str(1 // number))

    first, second, third = convert_each([(1, "a:1"), (0, "a:2"), RowRejectedError("no JSON")], convert)
    assert (first.where, first.answer) == ("a:1", "1")
    assert (str(second), second.where) == ("unexpected ZeroDivisionError", "a:2")
    assert str(third) == "no JSON"


def test_errors_of_the_study_and_of_the_machine_are_not_taken_for_bad_records(tmp_path, monkeypatch):
    def full(self, content, suffix="png", prefix=None):
        raise OSError("disk full")

    monkeypatch.setattr(ImageStore, "add", full)
    example = RawExample(question="q", answer="1", images=(png(),))
    with pytest.raises(OSError, match="disk full"):
        list(ingestor_of(tmp_path, [example]).ingest_split("train", None))
    for error in (StudyError(["data: wrong"]), MemoryError()):
        with pytest.raises(type(error)), rejecting("a:1"):
            raise error


def test_a_key_does_not_depend_on_the_name_of_the_stored_image(tmp_path):
    keys = set()
    for number, name in enumerate((None, "photo")):
        example = RawExample(question="q", answer="1", images=(png(),), jpeg_name=name)
        (outcome,) = ingestor_of(tmp_path / str(number), [example]).ingest_split("train", None)
        row = parse_row(outcome.row.encode(), "here")
        content = row.model_copy(
            update={"media": (Media(path=f"images/{outcome.signature.exact[0][:16]}.png"),)} if name is None else {}
        )
        keys.add((name, row.prompt_id == content_id(content)))
    assert keys == {(None, True), ("photo", False)}


def test_evaluation_splits_are_read_first():
    assert reading_order(["sft", "train", "test", "hard"]) == ["test", "hard", "sft", "train"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(vision_model(tmp_path_factory.mktemp("hub")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Prompts of one to four digits, the last with an image of 16 tokens."""
    folder = tmp_path_factory.mktemp("in")
    encoded = io.BytesIO()
    Image.new("RGB", (5, 3), "red").save(encoded, "PNG")
    (folder / "red.png").write_bytes(encoded.getvalue())
    rows = [("7", []), ("7 3", []), ("7 3 1", []), ("7", ["red.png"])]
    prompts = [{"prompt": prompt, "answer": "1", "images": images} for prompt, images in rows]
    own = [{"question": prompt, "answer": "1", "media": [{"path": name} for name in images]} for prompt, images in rows]
    for name, records in (("test", own), ("train", prompts)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def shortest(model):
    """Tokens of the prompt `7`, with the chat template."""
    return count_tokens(PromptRow(prompt_id="p", question="7", answer="1"), [], load_processor(model))


# tokens beyond those of `7`: `7 3` has 2 more, `7 3 1` has 4, an image has 16
@pytest.mark.parametrize(("more", "accepted"), [(-1, 0), (0, 1), (1, 1), (2, 2), (4, 3), (15, 3), (16, 4)])
def test_prompts_above_the_token_limit_are_rejected(folder, model, tmp_path, more, accepted):
    limit = PromptLimit(tokens=shortest(model) + more, model=model)
    section = JsonlPrompts(kind="jsonl_prompts", folder=str(folder), splits={"train": None}, max_prompt_length=limit)
    rows, rejected = ingest_all(section, tmp_path)
    assert len(rows["train"]) == accepted
    assert rejected["train"] == [f"prompt: more than {limit.tokens} tokens"] * (4 - accepted)
    assert len(list((tmp_path / "out" / "images").iterdir())) == (accepted == 4)


def test_a_strict_source_counts_long_prompts_too(folder, model, tmp_path):
    limit = PromptLimit(tokens=shortest(model), model=model)
    section = Jsonl(kind="jsonl", folder=str(folder), splits={"test": None}, max_prompt_length=limit)
    rows, rejected = ingest_all(section, tmp_path)
    assert (len(rows["test"]), len(rejected["test"])) == (1, 3)


def test_a_processor_that_cannot_count_is_an_error(folder, model, tmp_path):
    def section(**changes):
        limit = PromptLimit(tokens=1000, model=model).model_copy(update=changes)
        return JsonlPrompts(kind="jsonl_prompts", folder=str(folder), splits={"train": None}, max_prompt_length=limit)

    with pytest.raises(StudyError, match=r"data.max_prompt_length.model: there is no model folder"):
        ingest_all(section(model="./nowhere"), tmp_path)
    reader = str(text_model(tmp_path / "reader"))
    with pytest.raises(StudyError, match=r"data.max_prompt_length: .*/train.jsonl:4: the row shows images, but the"):
        ingest_all(section(model=reader), tmp_path)
