from rlassay.training.batch import completion_text, prompt_key


def test_the_key_of_a_row_is_its_prompt_id():
    assert prompt_key({"prompt_id": "ab12", "prompt": "anything"}) == "ab12"


def test_without_that_column_the_key_is_a_digest_of_the_text():
    messages = [{"role": "user", "content": [{"type": "image", "image": object()}, {"type": "text", "text": "Hi"}]}]
    same = [{"role": "user", "content": [{"type": "image", "image": object()}, {"type": "text", "text": "Hi"}]}]
    assert prompt_key({"prompt": messages}) == prompt_key({"prompt": same})
    assert prompt_key({"prompt": "Hi"}) != prompt_key({"prompt": "Ho"})
    assert len(prompt_key({"prompt": "Hi"})) == 16


def test_the_text_of_a_plain_and_of_a_conversational_completion():
    assert completion_text("Hi") == "Hi"
    assert completion_text([{"role": "assistant", "content": "Hi"}]) == "Hi"
