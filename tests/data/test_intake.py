"""Rows are taken in one by one: nothing is read before it is asked for, and nothing of a refused row is kept."""

import io

import pytest
from PIL import Image

from rlassay.config import StudyError
from rlassay.data.drafts import Draft, RowRefusedError, Source
from rlassay.data.images import Images
from rlassay.data.intake import Intake, in_order, take_in
from rlassay.data.journal import Kept, Refused
from rlassay.rewards import gold


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
