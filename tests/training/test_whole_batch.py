from rlassay.training.whole_batch import completion_text, prompt_key


def test_the_row_says_its_key():
    assert prompt_key({"prompt_id": "ab12", "prompt": "anything"}) == "ab12"


def test_other_rows_are_known_by_their_text():
    messages = [{"role": "user", "content": [{"type": "image", "image": object()}, {"type": "text", "text": "Hi"}]}]
    same = [{"role": "user", "content": [{"type": "image", "image": object()}, {"type": "text", "text": "Hi"}]}]
    assert prompt_key({"prompt": messages}) == prompt_key({"prompt": same})
    assert prompt_key({"prompt": "Hi"}) != prompt_key({"prompt": "Ho"})
    assert len(prompt_key({"prompt": "Hi"})) == 16


def test_both_formats_have_a_text():
    assert completion_text("Hi") == "Hi"
    assert completion_text([{"role": "assistant", "content": "Hi"}]) == "Hi"
