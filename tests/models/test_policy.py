import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ProcessorMixin

from rlassay.config import StudyError
from rlassay.config.model import Lora
from rlassay.models.hub import Model, Processor
from rlassay.models.policy import ChatFormat, build_policy, load_policy, peft_config, tokenizer_of
from rlassay.models.tiny import build_tiny_vlm
from tests.models.hubs import SMALLEST, TEXTS, hub, row, text_model, vision_model

IMAGE = Image.linear_gradient("L").resize((16, 16))


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory) -> Path:
    return text_model(tmp_path_factory.mktemp("hub") / "text")


@pytest.fixture(scope="module")
def vision_folder(tmp_path_factory) -> Path:
    return vision_model(tmp_path_factory.mktemp("hub") / "vision")


def logits(policy: tuple[Model, Processor]) -> torch.Tensor:
    model, processor = policy
    if isinstance(processor, ProcessorMixin):
        inputs = processor(text="<image>Which?", images=[IMAGE], return_tensors="pt")
    else:
        inputs = processor("Which?", return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**inputs).logits


def test_a_saved_policy_answers_as_before(tmp_path):
    model, processor = build_policy(SMALLEST, [row(image="x.png")])
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)

    loaded = load_policy(SMALLEST, tmp_path)

    assert torch.equal(logits(loaded), logits((model, processor)))
    assert tokenizer_of(loaded[1]).padding_side == "left"


def test_tensors_are_saved_under_the_names_that_a_resumed_trainer_looks_for(vision_folder, tmp_path):
    for policy in (build_policy(SMALLEST, [row(image="x.png")]), load_policy(SMALLEST, vision_folder)):
        policy[0].save_pretrained(tmp_path)
        policy[1].save_pretrained(tmp_path)

        assert load_file(tmp_path / "model.safetensors").keys() <= policy[0].state_dict().keys()
        assert torch.equal(logits(load_policy(SMALLEST, tmp_path)), logits(policy))


def test_a_folder_with_a_text_model_gives_a_tokenizer(text_folder):
    _, processor = build_policy(hub(text_folder), [row()])

    assert not isinstance(processor, ProcessorMixin)
    assert processor.padding_side == "left"
    assert processor.pad_token is not None


def test_a_folder_with_a_vision_model_gives_a_processor(vision_folder):
    _, processor = build_policy(hub(vision_folder), [row(image="x.png")])

    assert isinstance(processor, ProcessorMixin)


@pytest.mark.parametrize("kind", ["text_folder", "vision_folder"])
def test_a_saved_adapter_answers_as_before(kind, request, tmp_path):
    config = hub(request.getfixturevalue(kind), Lora(r=4))
    model, processor = build_policy(config, [])
    lora = peft_config(config)
    assert lora is not None
    adapted = get_peft_model(model, lora)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:  # it starts at zero, where the adapter does nothing
            torch.nn.init.normal_(weight, std=0.5)
    plain = logits(build_policy(config, []))
    adapted.save_pretrained(tmp_path)

    loaded = load_policy(config, tmp_path)

    assert torch.equal(logits(loaded), logits((adapted, processor)))
    assert not torch.allclose(logits(loaded), plain)


def test_an_adapter_on_a_warm_start_finds_its_base(text_folder, tmp_path):
    base = shutil.copytree(text_folder, tmp_path / "sft")
    config = hub("owner/never-downloaded", Lora(r=4))
    model, processor = load_policy(config, base)
    lora = peft_config(config)
    assert lora is not None
    get_peft_model(model, lora).save_pretrained(tmp_path / "rl")

    assert torch.equal(logits(load_policy(config, tmp_path / "rl")), logits((model, processor)))


def test_without_lora_every_weight_is_trained():
    assert peft_config(SMALLEST) is None
    assert peft_config(hub("owner/model")) is None


def test_rows_with_images_need_a_vision_model(text_folder):
    with pytest.raises(ValueError, match=r"model.name: 1 of 2 rows show images, but '.*text' reads text only"):
        build_policy(hub(text_folder), [row(), row(image="x.png")])


def test_a_missing_folder_is_named():
    with pytest.raises(ValueError, match=r"model.name: there is no model folder './no/such/model'"):
        build_policy(hub("./no/such/model"), [])


def test_a_model_without_chat_template_is_refused(text_folder, tmp_path):
    folder = shutil.copytree(text_folder, tmp_path / "base")
    (folder / "chat_template.jinja").unlink()

    with pytest.raises(ValueError, match="has no chat template; choose an instruction-tuned model"):
        build_policy(hub(folder), [])


def test_a_causal_model_declared_an_encoder_decoder_is_refused(text_folder):
    wrong = hub(text_folder).model_copy(update={"architecture": "seq2seq"})

    with pytest.raises(StudyError, match=r"model.architecture: got seq2seq, but .* is no encoder-decoder \(\w+\); ex"):
        build_policy(wrong, [])


def test_an_encoder_decoder_that_reads_no_text_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "whisper", "is_encoder_decoder": True}))

    with pytest.raises(ValueError, match=r"is an encoder-decoder \(whisper\), but not one that reads text"):
        build_policy(hub(tmp_path), [])


def test_an_empty_weights_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no policy here \(neither config.json nor adapter_config.json\)"):
        load_policy(SMALLEST, tmp_path)


def test_truncated_weights_are_refused(vision_folder, tmp_path):
    folder = shutil.copytree(vision_folder, tmp_path / "torn")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])

    with pytest.raises(ValueError, match=r"cannot load the model '.*torn'"):
        load_policy(SMALLEST, folder)


def test_weights_that_lack_a_tensor_are_refused(vision_folder, tmp_path):
    folder = shutil.copytree(vision_folder, tmp_path / "lacking")
    tensors = load_file(folder / "model.safetensors")
    gone = next(name for name in tensors if "mlp.up_proj" in name)
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, folder / "model.safetensors")

    with pytest.raises(ValueError, match=r"lack 1 tensors, the first being .*mlp.up_proj"):
        load_policy(SMALLEST, folder)


def test_an_adapter_without_its_base_is_refused(tmp_path):
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "./gone/base"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))

    with pytest.raises(ValueError, match=r"cannot load this adapter: there is no model folder './gone/base'"):
        load_policy(hub("owner/model", Lora()), tmp_path)


@pytest.fixture(scope="module")
def processor():
    return build_tiny_vlm(SMALLEST, TEXTS)[1]


def test_a_processor_takes_parts(processor):
    (turn,) = ChatFormat(processor=processor, with_format_instruction=False).prompt(row(image="x.png"))

    assert [part["type"] for part in turn["content"]] == ["image", "text"]


def test_a_tokenizers_template_takes_plain_text(processor):
    (turn,) = ChatFormat(processor=processor.tokenizer, with_format_instruction=False).prompt(row())

    assert turn == {"role": "user", "content": "Which digit is larger?\n(A)3 (B)7 (C)1 (D)9"}


def test_without_a_warm_start_a_system_turn_states_the_format(processor):
    system, user = ChatFormat(processor=processor.tokenizer, with_format_instruction=True).prompt(row())

    assert system["role"] == "system"
    assert "<answer>" in system["content"]
    assert user["role"] == "user"
