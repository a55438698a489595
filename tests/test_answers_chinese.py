"""Chinese statements, eliminated options, and free answers."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.answers import extract_answer, extract_choice
from rlassay.markup import normalise

STATEMENTS = [
    ("答案是B", "B"),
    ("答案：B", "B"),
    ("答案：（Ｂ）", "B"),
    ("正确答案为C。", "C"),
    ("正确选项是D", "D"),
    ("答案应该是B，因为7更大", "B"),
    ("因此选B", "B"),
    ("故选：D。", "D"),
    ("我选择C选项", "C"),
    ("选Ａ项", "A"),
    ("B是正确的", "B"),
    ("选项B正确", "B"),
    ("选项A错误，选项B正确", "B"),
    ("选项A是错的", None),
    ("排除A和C，答案是D", "D"),
    ("排除A，选B", "B"),
    ("A和B都不对，选C", "C"),
    ("答案不是B", None),
    ("不选B", None),
    ("不能选B", None),
    ("答案是A或B", None),
    ("答案是A还是B？", None),
    ("答案是B吗？", None),
    ("如果选B", None),
    ("选A、B", None),
    ("选A和B都可以", None),
    ("答案是 b", "B"),
    ("答案选Ｄ", "D"),
    ("答案是Apple", None),
    ("A不正确", None),
    ("B不是正确答案", None),
    ("<answer>选B</answer>", "B"),
    ("<answer>答案是Ｃ</answer>", "C"),
    ("<think>答案是A</think>答案是B", "B"),
    ("答案是A，不是B", "A"),
    ("答案是A。答案是B。", None),
    ("A 才是正确的", "A"),
    ("答案是A 因为它小", "A"),
    ("**答案**：B", "B"),
    ("答案：B. 7", "B"),
    ("不是答案A", None),
    ("By elimination, D.", "D"),
    ("Only C remains.", "C"),
    ("A, B and C can be ruled out.", None),
    ("We rule out A and B. Only option D is left.", "D"),
    ("The answer cannot be B", None),
    ("Option B is eliminated", None),
    ("I eliminated B.", None),
    ("The answer is neither A nor B", None),
    ("Eliminating A, B and D, the answer is C.", "C"),
    ("Answer: Ｂ．", "B"),
    ("Answer: 【B】", "B"),
    ("Answer: ⓑ", "B"),
    ("The answer is B 👍", "B"),
]


@pytest.mark.parametrize(("text", "expected"), STATEMENTS)
def test_the_stated_letter_is_extracted(text, expected):
    assert extract_choice(text, "ABCD") == expected


def test_all_ten_letters_can_be_answers():
    assert [extract_choice(f"答案是{letter}", "ABCDEFGHIJ") for letter in "ABCDEFGHIJ"] == list("ABCDEFGHIJ")


@pytest.mark.parametrize("unit", ["答案是", "答案是A或", "选A、", "不", "排除A", "选项A错误", "🙂"])
def test_a_megabyte_of_chinese_is_read_without_backtracking(unit):
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    extract_choice(text, "ABCD")
    assert time.process_time() - start < 30  # well under 1 s; one that backtracks takes hours


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>1</think><answer> 42 </answer> or so", "42"),
        ("<answer>42", "42"),
        (r"<answer>It is $\boxed{42}$</answer>", "42"),
        (r"First \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1", r"\boxed{1"),
        ("  42\n", "42"),
        ("<think>42", ""),
        ("", ""),
    ],
)
def test_a_free_answer_is_a_block_a_box_or_the_whole_text(text, expected):
    assert extract_answer(text) == expected


SNIPPETS = "答案 是 为 选项 选择 不 排除 A Ｂ b C 或 和 、 ， 。 ？ 吗 正确 错误 ： （ ） <answer> \\boxed{ }"
PARTS = st.sampled_from(SNIPPETS.split())


@given(st.one_of(st.text(), st.lists(PARTS, max_size=20).map("".join)), st.sampled_from(["", "A", "ABCD"]))
def test_any_text_gives_an_option_or_none(text, letters):
    answer = extract_choice(text, letters)
    assert answer is None or (len(answer) == 1 and answer in letters)
    assert extract_answer(text) in normalise(text)


@pytest.mark.parametrize("unit", ["<answer>", "\\boxed{", "{", "a ", "<think>"])
def test_a_megabyte_gives_a_free_answer_without_backtracking(unit):
    start = time.process_time()
    extract_answer(unit * (1_000_000 // len(unit)))
    assert time.process_time() - start < 30  # well under 1 s; one that backtracks takes hours
