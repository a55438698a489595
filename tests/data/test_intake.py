"""Rows are taken in one by one: nothing is read before it is asked for, and nothing of a refused row is kept."""

import io
import json
from collections import Counter

import pytest
from PIL import Image

from rlassay.config import StudyError
from rlassay.config.data import Conversations, Jsonl, JsonlPrompts, PromptLimit
from rlassay.data import intake
from rlassay.data.drafts import Draft, RowRefusedError, Source
from rlassay.data.duplicates import Shown
from rlassay.data.images import Images
from rlassay.data.intake import Intake, Tally, histogram, in_order, take_in
from rlassay.data.journal import Kept, Refused
from rlassay.models.hub import load_processor
from rlassay.models.prompt_length import count_tokens
from rlassay.records import Histogram, Media, PromptRow, SplitFacts, row_line
from rlassay.rewards import gold
from tests.data.taking import take
from tests.models.hubs import text_model, vision_model

# MERGED FROM test_intake.py: Rows are taken in one by one: nothing is read before it is asked for, and nothing
# of a refused row is kept.


def make(tmp_path, drafts, **about):
    source = Source(drafts={"train": lambda: iter(drafts)}, **about)
    return Intake(source=source, images=Images(tmp_path), too_long=lambda row, pictures: None)


def numbered(count, read):
    for number in range(count):
        read.append(number)
        yield Draft(question=f"What is {number}?", answer=str(number))


def png(colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_no_record_is_read_before_it_is_asked_for(tmp_path):
    read = []
    outcomes = take_in("train", None, make(tmp_path, numbered(1_000_000, read)))
    assert read == []
    for asked in range(1, 6):
        next(outcomes)
        assert len(read) == asked


def test_a_limit_reads_not_one_record_more(tmp_path):
    read = []
    assert len(list(take_in("train", 3, make(tmp_path, numbered(9, read))))) == 3
    assert read == [0, 1, 2]


def test_what_was_done_before_is_skipped_and_counts(tmp_path):
    first = list(take_in("train", 4, make(tmp_path, numbered(9, []))))
    intake = make(tmp_path, numbered(9, []))
    done = (outcome for outcome in first[:3] if intake.recall(outcome, "train"))
    assert list(take_in("train", 4, intake, done)) == first[3:]
    # what was recalled is compared with, as if it had been admitted
    repeated = make(tmp_path, [Draft(question="what is 1", answer="1")])
    repeated.recall(first[1], "train")
    assert [type(outcome) for outcome in take_in("train", None, repeated)] == [Refused]


def test_nothing_of_a_refused_row_is_kept(tmp_path, monkeypatch):
    """A row whose gold answer is not paid leaves no image behind, and does not make another row a duplicate."""

    def blind_to_b(completions):
        return [float(completion.text == "A") for completion in completions]

    monkeypatch.setitem(gold.GOLD_CHECKED, "choice_accuracy", (blind_to_b, lambda row: row.answer))
    choices = ("cat", "dog")
    unpaid = Draft(question="Which?", answer="B", choices=choices, images=(png("blue"),))
    paid = Draft(question="Which?", answer="A", choices=choices, images=(png("blue"),))
    intake = make(tmp_path, [unpaid, paid])
    outcomes = take_in("train", None, intake)
    assert isinstance(next(outcomes), Refused)
    assert list(intake.images.folder.iterdir()) == []
    assert isinstance(next(outcomes), Kept)
    assert len(list(intake.images.folder.iterdir())) == 1


@pytest.mark.parametrize("strict", [False, True])
def test_a_strict_source_counts_what_is_unsuitable_and_reports_mistakes(tmp_path, strict):
    drafts = [
        Draft(question="One?", answer="1", where="a:1"),
        Draft(question="one", answer="1", where="a:2"),
        Draft(question=" ", answer="1", where="a:3"),
        RowRefusedError("a:4: no JSON"),
        Draft(question="Two?", answer="2", where="a:5"),
    ]
    outcomes = take_in("train", None, make(tmp_path, drafts, strict=strict))
    if not strict:
        assert [isinstance(outcome, Kept) for outcome in outcomes] == [True, False, False, False, True]
        return
    assert isinstance(next(outcomes), Kept)
    assert next(outcomes) == Refused(reason="duplicate: nearly the same prompt stands in the split 'train'")
    with pytest.raises(StudyError) as caught:
        next(outcomes)
    assert caught.value.problems == ("a:3: question: it is blank", "a:4: no JSON")


def test_evaluation_splits_are_read_first():
    assert in_order(["sft", "train", "test", "hard"]) == ["test", "hard", "sft", "train"]


# MERGED FROM test_tally.py: What the rows of a split are like, from rows that can be counted by hand.


def kept(question, answer, choices=(), images=0):
    media = tuple(Media(path=f"{n}.png") for n in range(images))
    row = PromptRow(prompt_id="p", question=question, answer=answer, choices=choices, media=media)
    return Kept(row=row_line(row), shown=Shown(text=1))


def facts(*outcomes):
    counted = Tally()
    for outcome in outcomes:
        counted.add(outcome)
    return counted.facts()


def test_rows_with_options():
    found = facts(
        kept("Who?", "B", ("ox", "bee"), images=1),
        Refused(reason="image: unreadable"),
        kept("What?", "A", ("tea", "jam", "x")),
        kept("Where?", "B", ("a", "home"), images=1),
        Refused(reason="image: unreadable"),
    )
    assert found == SplitFacts(
        rows=3,
        refused={"image: unreadable": 2},
        choices={"2": 2, "3": 1},
        media={"0": 1, "1": 2},
        answers={"A": 1, "B": 2},
        distinct_answers=2,
        question_length=Histogram(quartiles=(4, 4, 5, 6, 6), width=1, bars=(1, 1, 1)),
        answer_length=Histogram(quartiles=(3, 3, 3, 4, 4), width=1, bars=(2, 1)),  # tea, bee, home
    )


def test_free_answers_by_falling_frequency_then_by_text(monkeypatch):
    answers = ["7", "yes", "no", "yes", "no", "12"]
    assert list(facts(*(kept("Q", answer) for answer in answers)).answers.items()) == [
        ("no", 2),
        ("yes", 2),
        ("12", 1),
        ("7", 1),
    ]
    monkeypatch.setattr(intake, "DISTINCT_ANSWERS", 3)
    found = facts(*(kept("Q", answer) for answer in answers))
    assert (found.answers, found.distinct_answers, found.rows) == ({}, None, 6)


def test_nothing_kept():
    assert facts(Refused(reason="r")) == SplitFacts(rows=0, refused={"r": 1}, distinct_answers=0)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([5], Histogram(quartiles=(5, 5, 5, 5, 5), width=1, bars=(1,))),
        # a range of 24 numbers in bars of 2: 1-2, ..., 23-24
        ([1, 2, 2, 24], Histogram(quartiles=(1, 1, 2, 2, 24), width=2, bars=(3, *[0] * 10, 1))),
        # one number more than 24 makes the bars 3 wide: 1-3, ..., 25
        ([1, 25], Histogram(quartiles=(1, 1, 1, 25, 25), width=3, bars=(1, *[0] * 7, 1))),
    ],
)
def test_histograms(numbers, expected):
    assert histogram(Counter(numbers)) == expected


# MERGED FROM test_lengths.py: Prompts of too many tokens are refused and counted, at any source.


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
    """Tokens of the prompt `7`, all that the chat template adds included."""
    return count_tokens(PromptRow(prompt_id="p", question="7", answer="1"), [], load_processor(model))


# tokens beyond those of `7`: `7 3` has 2 more, `7 3 1` has 4, an image has 16
@pytest.mark.parametrize(("more", "kept"), [(-1, 0), (0, 1), (1, 1), (2, 2), (4, 3), (15, 3), (16, 4)])
def test_a_prompt_may_take_as_many_tokens_as_the_limit_says(folder, model, tmp_path, more, kept):
    limit = PromptLimit(tokens=shortest(model) + more, model=model)
    section = JsonlPrompts(kind="jsonl_prompts", folder=str(folder), splits={"train": None}, max_prompt_length=limit)
    rows, refused = take(section, tmp_path)
    assert len(rows["train"]) == kept
    assert refused["train"] == [f"prompt: more than {limit.tokens} tokens"] * (4 - kept)
    assert len(list((tmp_path / "out" / "images").iterdir())) == (kept == 4)


def test_a_strict_source_counts_them_too(folder, model, tmp_path):
    limit = PromptLimit(tokens=shortest(model), model=model)
    section = Jsonl(kind="jsonl", folder=str(folder), splits={"test": None}, max_prompt_length=limit)
    rows, refused = take(section, tmp_path)
    assert (len(rows["test"]), len(refused["test"])) == (1, 3)


def test_what_the_processor_cannot_do_is_said(folder, model, tmp_path):
    def section(**changes):
        limit = PromptLimit(tokens=1000, model=model).model_copy(update=changes)
        return JsonlPrompts(kind="jsonl_prompts", folder=str(folder), splits={"train": None}, max_prompt_length=limit)

    with pytest.raises(StudyError, match=r"data.max_prompt_length.model: there is no model folder"):
        take(section(model="./nowhere"), tmp_path)
    reader = str(text_model(tmp_path / "reader"))
    with pytest.raises(StudyError, match=r"data.max_prompt_length: a row shows images, but the model reads text only"):
        take(section(model=reader), tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"not decoded here")
    turns = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "(1)"}]
    (tmp_path / "train.jsonl").write_text(json.dumps({"conversations": turns, "video": "clip.mp4"}) + "\n")
    clips = Conversations(
        kind="conversations",
        folder=str(tmp_path),
        splits={"train": None},
        max_prompt_length=section().max_prompt_length,
    )
    with pytest.raises(StudyError, match=r"data.max_prompt_length: the tokens of a clip cannot be counted"):
        take(clips, tmp_path)
