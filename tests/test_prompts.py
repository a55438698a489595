from rlassay.answers import extract_choice
from rlassay.prompts import demonstrate, instruction, messages
from rlassay.records import Media, PromptRow

ROW = PromptRow(
    prompt_id="p",
    question="Which digit is larger?",
    answer="B",
    choices=("3", "7", "1", "9"),
    media=(Media(path="images/a.png"), Media(path="images/b.png")),
)


def test_one_user_turn_with_its_images_first():
    assert messages(ROW) == [
        {
            "role": "user",
            "content": [
                {"type": "image"},
                {"type": "image"},
                {"type": "text", "text": "Which digit is larger?\n(A)3 (B)7 (C)1 (D)9"},
            ],
        }
    ]


def test_a_row_without_choices_and_images_has_only_its_question():
    row = ROW.model_copy(update={"choices": (), "media": ()})
    assert messages(row) == [{"role": "user", "content": [{"type": "text", "text": "Which digit is larger?"}]}]


def test_the_system_turn_comes_first():
    system, user = messages(ROW, system=instruction(ROW))
    assert system == {"role": "system", "content": [{"type": "text", "text": instruction(ROW)}]}
    assert user == messages(ROW)[0]


def test_the_instruction_names_the_tags_and_the_kind_of_answer():
    for tag in ("<think>", "</think>", "<answer>", "</answer>", "letter"):
        assert tag in instruction(ROW)
    assert "letter" not in instruction(ROW.model_copy(update={"choices": ()}))


def test_no_prompt_states_an_answer():
    text = messages(ROW)[0]["content"][-1]["text"]
    assert extract_choice(text, ROW.letters) is None
    assert extract_choice(instruction(ROW), ROW.letters) is None


def test_demonstrations_state_their_answer_with_and_without_thinking():
    assert demonstrate("B", "3 7") == "<think>3 7</think><answer>B</answer>"
    assert demonstrate("B") == "<answer>B</answer>"
    assert extract_choice(demonstrate("B", "A C"), ROW.letters) == "B"
