from typing import Any

import pytest
import torch

from rlassay.report.read.training import TOKEN_COLUMNS
from rlassay.training.rollouts import TokenRecord, TokenValues, token_records, token_table, token_texts
from tests.training.test_rollouts import rollout
from tests.training.tiny_lm import tokenizer


class ByteTokenizer:
    """Decodes ids as UTF-8 bytes; 0 is special."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return bytes(each for each in ids if each).decode("utf-8", errors="replace")

    def batch_decode(self, rows: list[list[int]], skip_special_tokens: bool) -> list[str]:
        return [self.decode(ids, skip_special_tokens) for ids in rows]


def record(**changes: Any) -> TokenRecord:
    """The second completion of prompt a, of three tokens."""
    content: dict[str, Any] = {
        "prompt_id": "a",
        "sample": 1,
        "tokens": ["<answer>", "B", ""],
        "weight": [0.5, 1.5, 1.0],
        "entropy": None,
        "perception": [0.0, 0.25, 0.0],
        "dominance": None,
        "vision_attention": [0.125, 0.25],
        "vision_grid": [1, 2],
        "document_tokens": ["Mean", " of"],
        "document_attention": [0.5, 0.25],
        "advantage": -0.5,
        "reward": 2.0,
        "scale": None,
    }
    return TokenRecord(**content | changes)


def test_a_row_holds_the_tokens_with_their_weights_and_signals():
    records = (record(), record(sample=2, entropy=[1.0, 2.0, 0.5]))
    table = token_table(rollout(7, token_records=records))
    first, second = table.to_pylist()
    assert first == {"step": 7} | record().__dict__
    assert second["entropy"] == [1.0, 2.0, 0.5]
    assert token_table(rollout(7)).schema == table.schema
    assert set(TOKEN_COLUMNS) == set(table.column_names)  # what the report reads


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ab", ["a", "b"]),
        ("é!", ["", "é", "!"]),  # two bytes
        ("a🙂", ["a", "", "", "", "🙂"]),  # four bytes
        ("", []),
    ],
)
def test_a_character_belongs_to_the_token_that_completes_it(text, expected):
    assert token_texts(ByteTokenizer(), list(text.encode())) == expected


def test_a_cut_character_and_special_tokens_keep_one_text_per_token():
    assert token_texts(ByteTokenizer(), [*"é".encode()][:1]) == ["\ufffd"]
    assert token_texts(ByteTokenizer(), [97, 0, 98]) == ["a", "", "b"]


def test_the_texts_make_up_the_completion():
    ids = [3, 4, 5, 1]
    texts = token_texts(tokenizer(), ids)
    assert len(texts) == 4
    assert "".join(texts) == tokenizer().decode(ids, skip_special_tokens=True)


def test_the_first_two_groups_are_recorded_with_the_weights_and_signals_of_their_tokens():
    three_groups = rollout(
        4,
        prompt_ids=["a", "a", "b", "b", "c", "c"],
        raw=torch.zeros(6, 2),
        weighted=torch.arange(12.0).view(6, 2),
        advantages=torch.arange(6.0),
        scale=torch.full((6,), 0.5),
    )
    values = TokenValues(
        weights_BT=torch.arange(18.0).view(6, 3),
        perception_BT=torch.arange(18.0).view(6, 3) / 2,
        vision=[([0.25, 0.5], [1, 2]), None, None, None],
    )
    ids = [[97, 98], [97], [97], [98, 97, 99], [97], [97]]
    records = token_records(three_groups, values, ids, ByteTokenizer())
    assert [(each.prompt_id, each.sample) for each in records] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    first, *_, last = records
    assert (first.tokens, first.weight, first.perception) == (["a", "b"], [0.0, 1.0], [0.0, 0.5])
    assert (first.vision_attention, first.vision_grid, last.vision_attention) == ([0.25, 0.5], [1, 2], None)
    assert (last.tokens, last.weight, last.entropy) == (["b", "a", "c"], [9.0, 10.0, 11.0], None)
    assert (last.advantage, last.reward, last.scale) == (3.0, 13.0, 0.5)
