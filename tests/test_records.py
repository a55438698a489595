import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rlassay.records import Completion, CompletionRow, Media, PromptRow, ScoreRow, parse_row, read_rows, write_rows

numbers = st.floats(allow_nan=False, allow_infinity=False)
prompt_rows = st.builds(
    PromptRow,
    prompt_id=st.text(min_size=1),
    question=st.text(),
    answer=st.text(),
    choices=st.lists(st.text(), max_size=10).map(tuple),
    media=st.lists(st.builds(Media, path=st.text()), max_size=2).map(tuple),
    demonstration=st.none() | st.text(),
    meta=st.dictionaries(st.text(), st.text() | st.integers() | numbers | st.booleans(), max_size=4),
)
counts = st.integers(0, 10_000)
completions = st.builds(
    Completion,
    text=st.text(),
    token_count=counts,
    finished=st.booleans(),
    row=prompt_rows,
    signals=st.dictionaries(st.text(), numbers, max_size=3),
)
modes = st.sampled_from(["sampled", "greedy"])
completion_rows = st.builds(
    CompletionRow,
    prompt_id=st.text(),
    mode=modes,
    sample=counts,
    text=st.text(),
    token_count=counts,
    finished=st.booleans(),
)
score_rows = st.builds(
    ScoreRow, prompt_id=st.text(), mode=modes, sample=counts, metric=st.text(), value=st.none() | numbers
)
GOOD = {"prompt_id": "p", "question": "Which?", "answer": "A", "choices": ["3", "7"]}


@given(
    st.one_of(
        *(
            st.tuples(st.just(kind), st.lists(rows, min_size=1, max_size=4))
            for kind, rows in (
                (PromptRow, prompt_rows),
                (Completion, completions),
                (CompletionRow, completion_rows),
                (ScoreRow, score_rows),
            )
        )
    )
)
def test_what_is_written_is_read_back(tmp_path_factory, kind_and_rows):
    kind, rows = kind_and_rows
    path = tmp_path_factory.getbasetemp() / "records" / "rows.jsonl"
    assert write_rows(path, rows) == len(rows)
    assert list(read_rows(path, kind)) == rows
    assert [file.name for file in path.parent.iterdir()] == ["rows.jsonl"]


def test_a_line_holds_what_differs_from_the_defaults_in_plain_characters(tmp_path):
    row = PromptRow(prompt_id="p", question="哪个?", answer="A", media=(Media(path="images/a.png"),))
    write_rows(tmp_path / "rows.jsonl", [row])
    expected = '{"prompt_id": "p", "question": "哪个?", "answer": "A", "media": [{"path": "images/a.png"}]}\n'
    assert (tmp_path / "rows.jsonl").read_text(encoding="utf-8") == expected


def test_letters_follow_the_choices():
    assert PromptRow(**(GOOD | {"choices": ("3", "7", "1")})).letters == "ABC"
    assert PromptRow(**(GOOD | {"choices": tuple("0123456789")})).letters == "ABCDEFGHIJ"
    assert PromptRow(**(GOOD | {"choices": ()})).letters == ""


def test_rows_are_frozen():
    row = PromptRow(**(GOOD | {"choices": ("3", "7")}))
    with pytest.raises(ValidationError, match="frozen"):
        row.answer = "B"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", r"rows.jsonl:2: the line: invalid JSON: EOF while parsing .*; expected a PromptRow$"),
        (b"", r"rows.jsonl:2: the line: invalid JSON: EOF while parsing .*; expected a PromptRow$"),
        (b"[]", r"rows.jsonl:2: the line: .*object.*; expected a PromptRow$"),
        (b'{"prompt_id": "\xff"}', r"rows.jsonl:2: not UTF-8 \(invalid start byte at byte 15\)$"),
        (json.dumps(GOOD | {"answer": 7}).encode(), r"rows.jsonl:2: answer: input should be a valid string, got '7'; "),
        (json.dumps(GOOD | {"choices": "AB"}).encode(), r"rows.jsonl:2: choices: .*array.*, got 'AB'; "),
        (json.dumps(GOOD | {"choices": ["3", 7]}).encode(), r"rows.jsonl:2: choices.1: .*string, got '7'; "),
        (json.dumps(GOOD | {"anser": "A"}).encode(), r"rows.jsonl:2: anser: unknown field; the fields are prompt_id, "),
        (b'{"prompt_id": "p", "question": "Which?"}', r"rows.jsonl:2: answer: field required; expected a PromptRow$"),
        (
            json.dumps(GOOD | {"media": [{"kind": "smell", "path": "a"}]}).encode(),
            r":2: media.0.kind: .*'image'.*'smell'",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + line + b"\n")
    rows = read_rows(path)
    assert next(rows).prompt_id == "p"
    with pytest.raises(ValueError, match=message):
        next(rows)
    with pytest.raises(ValueError, match=r"^there:"):
        parse_row(line, "there", CompletionRow)


def test_an_empty_file_is_an_error(tmp_path):
    (tmp_path / "rows.jsonl").touch()
    with pytest.raises(ValueError, match=r"rows.jsonl: empty; expected one ScoreRow per line"):
        next(read_rows(tmp_path / "rows.jsonl", ScoreRow))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = PromptRow(prompt_id="p", question="Which?", answer="A")
    write_rows(path, [row])

    def broken():
        yield row.model_copy(update={"answer": "B"})
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        write_rows(path, broken())
    assert list(read_rows(path)) == [row]
