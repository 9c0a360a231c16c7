"""What is loaded is what was saved: no tensor is left over, no codes miss, no tokenizer is cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import tiny_folder
from workbench.errors import UnsupportedArchitectureError
from workbench.models.load import load_model, save_model


def with_config(path: Path, **changed: object) -> Path:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changed))
    return path


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "BertModel", "OPTForCausalLM"])
def test_a_config_with_one_layer_fewer(tmp_path: Path, architecture: str) -> None:
    path = with_config(tiny_folder(tmp_path / "model", architecture), num_hidden_layers=1)
    with pytest.raises(UnsupportedArchitectureError, match=r"no place for \(first: .*1\."):
        load_model(path)


def test_a_tensor_that_nothing_reads(tmp_path: Path) -> None:
    path = tiny_folder(tmp_path / "model")
    tensors = load_file(path / "model.safetensors")
    tensors["model.layers.0.rotary_emb.inv_freq"] = torch.ones(4)  # as older versions wrote
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    assert load_model(path).n_parameters > 0
    tensors["model.layers.0.adapter.weight"] = torch.ones(4, 4)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedArchitectureError, match="adapter"):
        load_model(path)


def test_the_head_of_a_masked_language_model_is_left_out(tmp_path: Path) -> None:
    assert load_model(tiny_folder(tmp_path / "model", "BertForMaskedLM")).n_parameters > 0


def test_a_quantized_config_without_codes(tmp_path: Path) -> None:
    about = {"quant_method": "gptq", "bits": 4, "group_size": 8, "desc_act": False, "sym": True}
    path = with_config(tiny_folder(tmp_path / "model"), quantization_config=about)
    with pytest.raises(UnsupportedArchitectureError, match="no codes"):
        load_model(path)


def test_a_tokenizer_is_saved_as_it_was_loaded(tmp_path: Path) -> None:
    model = load_model(tiny_folder(tmp_path / "model"))
    model.tokenizer(["a fox"], truncation=True, max_length=4, padding=True)
    save_model(model, tmp_path / "copy")
    saved = json.loads((tmp_path / "copy" / "tokenizer.json").read_text())
    assert saved["truncation"] is None
    assert saved["padding"] is None
    assert len(load_model(tmp_path / "copy").tokenizer("a quick brown fox")["input_ids"]) > 4


def test_a_tokenizer_that_cuts_by_itself_still_does(tmp_path: Path) -> None:
    path = tiny_folder(tmp_path / "model")
    rules = json.loads((path / "tokenizer.json").read_text())
    own = {"direction": "Right", "max_length": 128, "strategy": "LongestFirst", "stride": 0}
    (path / "tokenizer.json").write_text(json.dumps(rules | {"truncation": own}))
    model = load_model(path)
    model.tokenizer(["a fox"], truncation=True, max_length=4)
    save_model(model, tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "tokenizer.json").read_text())["truncation"] == own


def test_weights_are_no_part_of_the_file_any_more(tmp_path: Path) -> None:
    path = tiny_folder(tmp_path / "model", dtype=torch.float32)
    model = load_model(path)
    before = {name: tensor.clone() for name, tensor in model.hf_model.state_dict().items()}
    (path / "model.safetensors").write_bytes(b"")  # in place, as a copying program does
    after = model.hf_model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
