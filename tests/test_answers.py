"""Answers of texts, read by hand, and properties of the parsers on any text."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.answers import extract_answer, extract_choice, extract_choice_lenient

STRICT = [
    # Blocks
    ("<answer>B</answer>", "B"),
    ("<answer> (C) dog </answer>", "C"),
    ("<answer>b</answer>", "B"),
    ("<answer>The answer is D</answer>", "D"),
    ("<answer>Option C</answer>", "C"),
    ("<answer>A</answer> <answer>A</answer>", "A"),
    ("<answer>A</answer><answer>B</answer>", None),
    ("<answer>B</answer> So the answer is C.", None),
    ("<answer>A dog</answer>", None),
    ("<answer>dog</answer> Answer: B", None),
    ("<answer></answer>", None),
    ("<answer></answer> The answer is B", "B"),
    ("<answer>B or C</answer>", None),
    ("<answer>A, because</answer>", None),
    ("<answer>not B</answer>", None),
    ("<answer>B", "B"),
    ("The answer is B</answer>", "B"),
    ("＜answer＞Ｂ＜/answer＞", "B"),
    (r"\boxed{B}", "B"),
    (r"$\boxed{\text{C}}$", "C"),
    (r"\boxed{A} or \boxed{B}", None),
    (r"Both give \boxed{A}, so \boxed{A}.", "A"),
    # Thinking
    ("<think>3 7</think><answer>B</answer>", "B"),
    ("<think>The answer is A</think>The answer is C", "C"),
    ("<think>The answer is B", None),
    ("<THINK>A</THINK><ANSWER>B</ANSWER>", "B"),
    ("so it is A</think><answer>B</answer>", "B"),
    ("The answer is B</think>", None),
    ("<think><think>a</think>Answer: B", "B"),
    ("Answer: B <think>or C", "B"),
    # Cues
    ("Answer: (B)", "B"),
    ("the answer is B", "B"),
    ("The answer is B.", "B"),
    ("answer: b", "B"),
    ("the answer is b.", "B"),
    ("the answer is the letter b", "B"),
    ("**Answer:** B", "B"),
    ("**Answer: B**", "B"),
    ("Answer: `B`", "B"),
    ("Answer:\nB", "B"),
    ("### Answer\nB", "B"),
    ("The answer is\n\nB", "B"),
    ("Answer B", "B"),
    ("answer = B", "B"),
    ("Answer -> B", "B"),
    ("Answer - B", "B"),
    ("Answer: B ✅", "B"),
    ("Answer: 👉 B", "B"),
    ("The answer is 'B'", "B"),
    ("The answer is “B”", "B"),
    ("The answer is (B) 7", "B"),
    ("Answer: B. The digit is 7", "B"),
    ("Final answer: D", "D"),
    ("My choice is C", "C"),
    ("The answer is option (B).", "B"),
    ("The correct option is clearly B", "B"),
    ("The answer to the question is C", "C"),
    ("The answer must be B", "B"),
    ("The answer is A because it is small", "A"),
    ("The answer is A\nExplanation: it is small", "A"),
    ("B is correct", "B"),
    ("B is the right answer", "B"),
    ("A is the answer", "A"),
    ("Option B is correct. Option A is wrong.", "B"),
    # Weaker statements
    ("I choose B", "B"),
    ("I would go with option C.", "C"),
    ("It's D.", "D"),
    ("so it must be C.", "C"),
    ("A and B are out, leaving D.", "D"),
    ("7 is shown.\n(B)\n", "B"),
    ("B", "B"),
    ("(B)", "B"),
    ("b", "B"),
    ("B) 7", "B"),
    ("(B)7", "B"),
    ("A", "A"),
    # Full width and styled letters
    ("Ｂ", "B"),
    ("Answer：Ｂ", "B"),
    ("the answer is ｂ", "B"),
    ("𝐁", "B"),
    # Article, pronoun, words
    ("The answer is a dog", None),
    ("The answer is A dog", None),
    ("A dog", None),
    ("Answer: dog", None),
    ("Answer: A-frame", None),
    ("Answer: C++", None),
    ("Answer: A.M.", None),
    ("Answer: I'm not sure", None),
    ("The answer is B, a dog", "B"),
    ("I am sure the answer is A", "A"),
    ("so I choose D", "D"),
    ("so I think", None),
    # Negation, conditions, questions
    ("It is not B, the answer is D", "D"),
    ("It is not B so the answer is D", "D"),
    ("The answer is not B", None),
    ("The answer isn't B", None),
    ("answer is definitely not B", None),
    ("I don't think the answer is B", None),
    ("I do not think that the answer is B.", None),
    ("This is not the answer: B", None),
    ("The wrong answer is B", None),
    ("B is not correct", None),
    ("Neither A nor B is correct", None),
    ("I would not choose B", None),
    ("If the answer is B, then it is red", None),
    ("Is the answer B?", None),
    ("The answer is ≠ B", None),
    # Eliminated options, alternatives, conflicts
    ("We can eliminate A and C. The answer is D.", "D"),
    ("A is wrong, B is wrong, so the answer is C", "C"),
    ("The answer is B, C is wrong", "B"),
    ("The option A is wrong. The option B is wrong.", None),
    ("Option A: a dog. Option B: a cat.", None),
    ("A) 3\nB) 7", None),
    ("A) 3\nB) 7\nC) 1\nAnswer: B", "B"),
    ("Answer with the letter (A, B, C or D).", None),
    ("Choose the correct answer: A, B, C or D. The answer is B", "B"),
    ("The answer is B or C", None),
    ("The answer is B and C", None),
    ("Answer: A, B", None),
    ("Answer: B / C", None),
    ("A or B is correct", None),
    ("The answer is A. The answer is B.", None),
    # Nothing, and letters that are no options
    ("", None),
    (" \n ", None),
    ("I don't know the answer", None),
    ("The answer is E", None),
    ("I", None),
    ("7", None),
]


@pytest.mark.parametrize(("text", "expected"), STRICT)
def test_the_stated_letter_is_extracted(text, expected):
    assert extract_choice(text, "ABCD") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("The answer is I", "I"), ("The answer is I think B", None), ("Answer: j", "J"), ("<answer>i</answer>", "I")],
)
def test_the_pronoun_is_an_option_if_nothing_follows_it(text, expected):
    assert extract_choice(text, "ABCDEFGHIJ") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>3 7</think><answer>B</answer>", "B"),
        ("<answer>A</answer>", "A"),  # no article: the next word is a tag's
        ("<think>3A 7</think><answer>A</answer>", "A"),
        ("It is not B, the answer is D", "D"),
        ("The answer is A. The answer is B.", "B"),  # strict: a conflict
        ("<answer>B dog</answer>", "B"),  # strict: no letter alone
        ("The answer is a dog", None),
        ("the answer is b", "B"),
        ("B, I think so", "B"),
        ("<think>it is C", "C"),
        ("<think>C</think> dog", "C"),
        ("The answer is Ｂ项", "B"),
        ("E", None),
        ("", None),
    ],
)
def test_lenient_takes_the_last_letter_that_is_a_word(text, expected):
    assert extract_choice_lenient(text, "ABCD") == expected


SNIPPETS = r"""
A B C a b I Ｂ ı ſ K answer Answer: option is not the it's so choose correct or and ( ) . , ? ' - }
<answer> </answer> <think> </think> \boxed{ \text{
"""
WORDS = st.sampled_from([*SNIPPETS.split(), "\n", " "])
MEGABYTES = r"""
answer_ the_answer_is_a_ answer:_A_or_ answer_to_ <think> <answer> \boxed{ A_ it_is_A._ (_ not_not_ ﷺ B_is_ a so_
"""


def test_lenient_does_not_read_a_letter_before_a_tag_as_the_article():
    assert extract_choice_lenient("<think>7A</think><answer>A</answer>", "ABCD") == "A"


@pytest.mark.parametrize("extract", [extract_choice, extract_choice_lenient])
@given(
    text=st.one_of(st.text(max_size=80), st.lists(WORDS, max_size=25).map(" ".join), st.lists(WORDS).map("".join)),
    letters=st.integers(0, 10).map(lambda count: "ABCDEFGHIJ"[:count]),
)
def test_any_text_gives_an_option_or_none(extract, text, letters):
    answer = extract(text, letters)
    assert answer is None or (len(answer) == 1 and answer in letters)


@given(thought=st.text(max_size=60).filter(lambda text: "think>" not in text.lower()))
def test_thinking_does_not_change_the_answer(thought):
    assert extract_choice(f"<think>{thought}</think><answer>C</answer>", "ABCD") == "C"


@pytest.mark.parametrize("unit", [unit.replace("_", " ") for unit in MEGABYTES.split()] + ["\n"])
def test_a_megabyte_is_read_without_backtracking(unit):
    text = unit * (1_000_000 // len(unit))
    start = time.perf_counter()
    extract_choice(text, "ABCD")
    extract_choice_lenient(text, "ABCD")
    assert time.perf_counter() - start < 30  # 0.4 s here; a regex that backtracks takes hours


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"\boxed{B. \frac{1}{2}}", "B"),
        (r"\boxed{\textrm{B}}", "B"),
        (r"<answer>\boxed{\mathbf{(C)}}</answer>", "C"),
        ("<answer>B选项</answer>", "B"),
        ("答案：Ｂ", "B"),
        (r"The answer is B. \boxed{7}", "B"),
        ("<answer>D</answer>" + " and so on" * 8_000, "D"),
    ],
)
def test_a_choice_in_markup_beside_a_number_or_before_long_text_is_read(text: str, letter: str):
    assert extract_choice(text, "ABCD") == letter


@pytest.mark.parametrize("template", ["{}", "<answer>{}</answer>", "<think>hm</think>{}"])
@pytest.mark.parametrize("ending", ["A: 18", "#### 18", "Answer: 18"])
def test_the_last_of_several_lines_states_the_answer(template: str, ending: str):
    text = f"The total of all eggs is 16 - 3 = 13.\nShe makes 9 * 2 = 18 dollars.\n{ending}"
    assert extract_answer(template.format(text)) == "18"
