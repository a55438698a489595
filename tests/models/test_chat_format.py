"""Chat templates of other shapes than the built-in one."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlassay.config.explain import StudyError
from rlassay.config.training import Recipe
from rlassay.models.policy import ChatFormat, check_chat_format
from rlassay.models.tiny import TAGS, train_tokenizer
from rlassay.prompts import demonstrate, instruction
from rlassay.training.sft import sft_dataset
from tests.evaluation.tiny import tiny_study
from tests.models.hubs import TEXTS, row

TURN = "{{ '<|' + m['role'] + '|>' + m['content'] }}"
END = "{% if m['role'] == 'assistant' %}{{ '<eos>' }}{% endif %}"
OPEN = "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
LAST = "m['content'].split('</think>')[-1]"
TEMPLATES = {
    "plain": f"{{% for m in messages %}}{TURN}{END}{{% endfor %}}{OPEN}",
    "prefills": f"{{% for m in messages %}}{TURN}{END}{{% endfor %}}"
    "{% if add_generation_prompt %}{{ '<|assistant|><think>' }}{% endif %}",
    "prefills_a_line": f"{{% for m in messages %}}{TURN}{END}{{% endfor %}}"
    "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}",
    "drops_thoughts": "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    f"{{{{ '<|assistant|>' + {LAST} + '<eos>' }}}}{{% else %}}{TURN}{{% endif %}}{{% endfor %}}{OPEN}",
    "reformats": "{% for m in messages %}{{ '<|' + m['role'] + '|>' + (m['content'] | replace('><', '>\n<')) }}"
    f"{END}{{% endfor %}}{OPEN}",
    "ends_nothing": f"{{% for m in messages %}}{TURN}{{% endfor %}}{OPEN}",
    "refuses_system": "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    f"{{% for m in messages %}}{TURN}{END}{{% endfor %}}{OPEN}",
    "ignores_system": f"{{% for m in messages %}}{{% if m['role'] != 'system' %}}{TURN}{END}{{% endif %}}"
    f"{{% endfor %}}{OPEN}",
    "loses_questions": f"{{% for m in messages %}}{{{{ '<|' + m['role'] + '|>' }}}}{END}{{% endfor %}}{OPEN}",
}
ROW = row(demonstration="<think>7 3</think><answer>B</answer>")
ENDS = ("<eos>",)


def tokenizer(template: str) -> Any:
    made = train_tokenizer(TEXTS, vocab_size=300)
    made.chat_template = TEMPLATES[template]
    return made


def chat(template: str, *, with_format_instruction: bool = False) -> ChatFormat:
    return ChatFormat(processor=tokenizer(template), with_format_instruction=with_format_instruction)


def recipe(*, warm: bool) -> Recipe:
    return tiny_study(**({} if warm else {"sft": None})).arms["base"].recipe


PREFILLED = {"prefills": "<think>", "prefills_a_line": "<think>\n"}


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_what_a_template_prefills(template):
    assert chat(template).prefilled == PREFILLED.get(template, "")


@pytest.mark.parametrize("template", sorted(TEMPLATES.keys() - {"loses_questions"}))
def test_the_warm_start_learns_prompt_demonstration_and_end(template, tmp_path):
    made = chat(template)
    assert made.is_faithful(ROW, ENDS) == (template in ("plain", "prefills", "refuses_system", "ignores_system"))
    data = sft_dataset([ROW, ROW], made, tmp_path, ENDS)
    prompt = made.rendered(ROW)
    target = made.demonstration(ROW) + "<eos>"
    if "input_ids" in data.column_names:
        assert made.processor.decode(data[0]["input_ids"]) == prompt + target
        learned = [each for each, bit in zip(data[0]["input_ids"], data[0]["completion_mask"], strict=True) if bit]
        assert made.processor.decode(learned) == target
    else:
        turns = data[0]["prompt"] + data[0]["completion"]
        assert made.processor.apply_chat_template(turns, tokenize=False) == prompt + target


def test_trl_trains_on_the_written_out_rows(tmp_path):
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    made = chat("drops_thoughts")
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=300, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
            )
        )
    options: dict[str, Any] = {"max_steps": 1, "report_to": "none", "use_cpu": True, "bf16": False, "max_length": None}
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=str(tmp_path), completion_only_loss=True, **options),
        train_dataset=sft_dataset([ROW, ROW], made, tmp_path, ENDS),
        processing_class=made.processor,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    labels = batch["labels"][0]
    assert made.processor.decode(labels[labels != -100]) == f"{ROW.demonstration}<eos>"
    assert made.processor.decode(batch["input_ids"][0]) == f"{made.rendered(ROW)}{ROW.demonstration}<eos>"


def test_a_demonstration_that_the_template_makes_impossible_is_named():
    answer_only = row(demonstration="<answer>B</answer>")
    with pytest.raises(
        ValueError, match=r"prompt p: demonstration: begins with '<answer>.*every completion with '<think>'"
    ):
        chat("prefills").demonstration(answer_only)
    assert chat("prefills_a_line").demonstration(ROW) == "7 3</think><answer>B</answer>"


@pytest.mark.parametrize("template", ["refuses_system", "ignores_system"])
def test_without_a_system_role_the_instruction_goes_into_the_user_turn(template):
    made = chat(template, with_format_instruction=True)
    (turn,) = made.prompt(ROW)
    assert turn["role"] == "user"
    assert turn["content"].startswith(f"{instruction(ROW)}\n\n{ROW.question}")
    assert instruction(ROW) in made.rendered(ROW)
    assert [turn["role"] for turn in chat("plain", with_format_instruction=True).prompt(ROW)] == ["system", "user"]


@pytest.mark.parametrize("template", sorted(TEMPLATES.keys() - {"loses_questions"}))
@pytest.mark.parametrize("warm", [True, False])
def test_usable_templates_pass(template, warm):
    check_chat_format(tokenizer(template), recipe(warm=warm))


def test_a_template_that_loses_the_question_is_refused():
    with pytest.raises(StudyError, match="leaves out the question"):
        check_chat_format(tokenizer("loses_questions"), recipe(warm=True))


def test_tags_that_vanish_when_decoded_are_refused():
    made = tokenizer("plain")
    made.add_special_tokens({"additional_special_tokens": list(TAGS[:2])})
    assert made.decode(made(demonstrate("B", "a"))["input_ids"], skip_special_tokens=True) == "a<answer>B</answer>"
    with pytest.raises(StudyError, match=r"the tags <think>, </think> vanish .* \(they are special tokens\)"):
        check_chat_format(made, recipe(warm=True))
