"""The tiny model's tokenizer: a byte-pair vocabulary learned from the study's own training text."""

import re
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, EOS, IMAGE = "<pad>", "<eos>", "<image>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
TAGS = ("<think>", "</think>", "<answer>", "</answer>")

# A standalone option letter, a digit and a punctuation mark are never joined with their neighbours: `(A)3` is four
# tokens, so that the letter which the prompt shows and the letter which the answer names are one and the same token.
_PIECES = Regex(
    r"(?<!\p{L})[A-J](?!\p{L})"
    r"| ?(?![A-J](?!\p{L}))\p{L}+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{N}]"
    r"|\s+"
)

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '<eos>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with the tags as tokens of their own; the same texts give the same tokenizer.

    Args:
        texts: what to learn merges from; any other text can still be encoded, byte by byte if need be.
        vocab_size: tokens in all; fewer if the texts have no more pairs to merge.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_PIECES, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, EOS, IMAGE, *ROLES]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(TAGS),
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_without_tags(texts), trainer)
    # Not special: decoding with skip_special_tokens must keep what rewards look for.
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        additional_special_tokens=[IMAGE, *ROLES],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _without_tags(texts: Iterable[str]) -> Iterable[str]:
    return (re.sub("|".join(TAGS), "\n", text) for text in texts)
