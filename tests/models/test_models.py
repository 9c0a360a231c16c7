from __future__ import annotations

import copy
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import SMALL, tiny_folder, tiny_model, tiny_tokenizer
from workbench.errors import (
    ConfigError,
    ModelNotFoundError,
    NotEnoughMemoryError,
    TokenizerMissingError,
    UnsupportedArchitectureError,
)
from workbench.models import placement
from workbench.models.load import (
    ClassificationHead,
    LoadedModel,
    ModelSource,
    load_model,
    save_model,
)


class Halves:
    """Stands in for a compressed weight: the same number everywhere, stored in half a byte."""

    def __init__(self, shape: tuple[int, int], value: float = 0.5) -> None:
        self.shape = shape
        self.value = value
        self.stored_bytes = shape[0] * shape[1] // 2

    def dequantize(self) -> torch.Tensor:
        return torch.full(self.shape, self.value)

    def describe(self) -> dict[str, object]:
        return {"kind": "constant", "shape": list(self.shape)}


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "tiny-llama")


def edit_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))


@pytest.mark.parametrize("architecture", SMALL)
def test_every_architecture_loads_and_runs(architecture: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", architecture)
    model = load_model(folder)
    assert model.source.architecture == architecture
    assert model.stored_dtype == torch.float16
    assert model.dtype == torch.float32
    assert not model.hf_model.training
    assert not any(p.requires_grad for p in model.hf_model.parameters())
    assert model.max_length == 64
    ids = torch.tensor([[5, 6, 7]])
    assert all(torch.isfinite(t).all() for t in model.hf_model(input_ids=ids)[:1])
    assert load_model(folder).fingerprint == model.fingerprint  # nothing is made up at random


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "OPTForCausalLM", "GPT2LMHeadModel"])
def test_size_counts_tied_tensors_once(architecture: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", architecture)
    model = load_model(folder)
    stored = sum(t.nbytes for t in load_file(folder / "model.safetensors").values())
    assert model.size_bytes == stored == 2 * model.n_parameters


def test_a_folder_is_a_string_or_a_path_and_is_preferred_to_a_hub_id(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(llama.parent)
    model = load_model("tiny-llama")
    assert model.source == ModelSource(
        "folder", str(llama.resolve()), None, "LlamaForCausalLM", "tiny-llama"
    )
    assert ModelSource.from_dict(json.loads(json.dumps(model.source.to_dict()))) == model.source
    assert load_model(llama).fingerprint == model.fingerprint


@pytest.mark.parametrize(
    ("given", "expected"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), (torch.float16, torch.float16)],
)
def test_dtype_is_what_it_computes_in_not_what_is_stored(
    given: Any, expected: torch.dtype, llama: Path
) -> None:
    model = load_model(llama, dtype=given)
    assert model.dtype == expected
    assert model.stored_dtype == torch.float16
    assert model.size_bytes == load_model(llama).size_bytes


def test_stored_dtype_is_read_from_the_tensors_not_from_the_config(llama: Path) -> None:
    edit_config(llama, dtype="float32")
    assert load_model(llama).stored_dtype == torch.float16


def test_sharded_checkpoints_load(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    tiny_tokenizer().save_pretrained(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    loaded = load_model(tmp_path)
    assert loaded.n_parameters == model.num_parameters()
    sorted(tmp_path.glob("model-*"))[0].unlink()
    with pytest.raises(ModelNotFoundError, match="incomplete"):
        load_model(tmp_path)


def test_a_live_model_is_copied_and_never_changed() -> None:
    live, tokenizer = tiny_model().to(torch.bfloat16), tiny_tokenizer()
    before = {k: v.clone() for k, v in live.state_dict().items()}
    model = load_model(live, tokenizer)
    assert model.source.kind == "live"
    assert model.stored_dtype == torch.bfloat16
    assert model.dtype == torch.float32
    name = "model.layers.0.mlp.up_proj"
    model.set_weight(name, Halves((24, 16)))  # type: ignore[arg-type]
    model.tokenizer.add_tokens(["new"])
    assert live.training
    assert all(p.requires_grad and p.dtype == torch.bfloat16 for p in live.parameters())
    assert all(torch.equal(before[k], v) for k, v in live.state_dict().items())
    assert "new" not in tokenizer.get_vocab()


def test_a_live_model_computes_as_before() -> None:
    live = tiny_model().eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    model = load_model(live, tiny_tokenizer())
    assert torch.equal(model.hf_model(input_ids=ids).logits, live(input_ids=ids).logits)


def test_casting_a_live_model_keeps_rotary_frequencies_exact(llama: Path) -> None:
    model = load_model(tiny_model(), tiny_tokenizer(), dtype="bfloat16")
    buffers = dict(model.hf_model.named_buffers())
    assert {b.dtype for name, b in buffers.items() if "inv_freq" in name} == {torch.float32}


def test_set_weight_puts_the_dense_copy_in_place(llama: Path) -> None:
    model = load_model(llama)
    name = "model.layers.1.mlp.down_proj"
    size, print_before = model.size_bytes, model.fingerprint
    model.set_weight(name, Halves((16, 24)))  # type: ignore[arg-type]
    assert (model.hf_model.get_submodule(name).weight == 0.5).all()  # type: ignore[operator]
    assert model.size_bytes == size - 16 * 24 * 2 + 16 * 24 // 2
    assert model.fingerprint != print_before
    with pytest.raises(ConfigError, match="has no module"):
        model.set_weight("model.layer", Halves((16, 24)))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="does not fit"):
        model.set_weight(name, Halves((24, 16)))  # type: ignore[arg-type]


def test_set_weight_transposes_for_conv1d(tmp_path: Path) -> None:
    model = load_model(tiny_folder(tmp_path, "GPT2LMHeadModel"))
    weight = Halves((48, 16))
    weight.dequantize = lambda: torch.arange(48.0 * 16).reshape(48, 16)  # type: ignore[method-assign]
    model.set_weight("transformer.h.0.attn.c_attn", weight)  # type: ignore[arg-type]
    stored = model.hf_model.get_submodule("transformer.h.0.attn.c_attn").weight
    assert torch.equal(stored, weight.dequantize().T)


def test_a_tied_weight_stays_tied_and_counts_once(llama: Path) -> None:
    model = load_model(llama)
    size = model.size_bytes
    model.set_weight("lm_head", Halves((260, 16)))  # type: ignore[arg-type]
    embedding = model.hf_model.get_input_embeddings().weight
    assert (embedding == 0.5).all()  # type: ignore[operator]
    assert model.size_bytes == size - 260 * 16 * 2 + 260 * 16 // 2


def test_a_copy_is_independent(llama: Path) -> None:
    model = load_model(llama)
    other = model.copy()
    assert other.fingerprint == model.fingerprint
    assert other.size_bytes == model.size_bytes  # ties survive
    other.set_weight("model.layers.0.self_attn.o_proj", Halves((16, 16)))  # type: ignore[arg-type]
    assert model.weights == {}
    assert other.fingerprint != model.fingerprint == load_model(llama).fingerprint
    third = other.copy()
    assert third.weights == other.weights
    assert third.weights is not other.weights


def test_fingerprint_follows_what_changes_the_answer(llama: Path) -> None:
    model = load_model(llama)
    first = model.fingerprint
    assert len(first) == 16
    assert int(first, 16) >= 0
    model.tokenizer(["a", "abc"], padding=True, truncation=True, max_length=2)
    changed = copy.copy(model)
    changed._fingerprint = None
    assert changed.fingerprint == first  # padding of a call is not part of the tokenizer
    with torch.no_grad():
        next(iter(model.hf_model.parameters())).mul_(1.5)
    assert model.fingerprint != first  # seen without being told

    other = load_model(llama)
    other.tokenizer.add_tokens(["new"])
    assert other.fingerprint != first
    head = ClassificationHead(torch.zeros(2, 16), torch.zeros(2), ("a", "b"))
    headed = load_model(llama)
    headed.head = head
    assert headed.fingerprint != first
    assert headed.size_bytes == load_model(llama).size_bytes + (2 * 16 + 2) * 2
    other_labels = load_model(llama)
    other_labels.head = ClassificationHead(head.weight, head.bias, ("a", "c"))
    assert other_labels.fingerprint != headed.fingerprint
    assert load_model(llama, dtype="bfloat16").fingerprint != first


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "GPT2LMHeadModel", "BertForMaskedLM"])
def test_save_and_load_bring_a_live_model_back(
    architecture: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = load_model(tiny_model(architecture).to(dtype), tiny_tokenizer())
    model.head = ClassificationHead(torch.rand(3, 16), torch.rand(3), ("x", "y", "z"))
    path = save_model(model, tmp_path / "new" / "folder")
    back = load_model(path)
    assert back.fingerprint == model.fingerprint
    assert (back.stored_dtype, back.size_bytes) == (dtype, model.size_bytes)
    assert back.source.name == model.source.name
    assert back.head is not None
    assert back.head.labels == ("x", "y", "z")
    assert torch.equal(back.head.weight, model.head.weight)
    on_disk = sum(t.nbytes for t in load_file(path / "model.safetensors").values())
    assert on_disk == model.size_bytes - (3 * 16 + 3) * dtype.itemsize  # and ties once


def test_save_keeps_values_that_the_stored_dtype_cannot_hold(llama: Path, tmp_path: Path) -> None:
    model = load_model(llama)
    with torch.no_grad():
        model.hf_model.get_submodule("model.norm").weight.add_(1e-6)  # type: ignore[operator]
    back = load_model(save_model(model, tmp_path / "out"))
    assert back.fingerprint == model.fingerprint
    assert back.stored_dtype == torch.float16


def test_save_over_the_folder_that_the_model_was_read_from(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path, dtype=torch.float32)  # its tensors are memory-mapped
    model = load_model(folder)
    model.set_weight("model.layers.0.self_attn.o_proj", Halves((16, 16)))  # type: ignore[arg-type]
    fingerprint = model.fingerprint
    save_model(model, folder)
    model._fingerprint = None
    assert model.fingerprint == fingerprint
    assert dataclasses.replace(model, weights={}).fingerprint == load_model(folder).fingerprint
    assert not list(folder.glob(".saving-*"))


def test_summary_and_generate(llama: Path) -> None:
    model = load_model(llama)
    assert model.summary().startswith("tiny-llama: LlamaForCausalLM, 0.0 M parameters, 0.0 MB in")
    assert "float16" in model.summary()
    text = model.generate("def add(", max_new_tokens=5)
    assert isinstance(text, str)
    assert text == model.generate("def add(", max_new_tokens=5)
    with pytest.raises(ConfigError, match="takes 64 together"):
        model.generate("def add(", max_new_tokens=60)
    with pytest.raises(ConfigError, match="not empty"):
        model.generate("")


def test_encoders_do_not_generate(tmp_path: Path) -> None:
    model = load_model(tiny_folder(tmp_path, "BertModel"))
    assert not model.is_decoder
    with pytest.raises(UnsupportedArchitectureError, match="does not generate text"):
        model.generate("hello")


def test_a_masked_language_model_loads_as_its_encoder(tmp_path: Path) -> None:
    model = load_model(tiny_folder(tmp_path, "BertForMaskedLM"))
    assert type(model.hf_model).__name__ == "BertModel"
    assert model.hf_model.pooler is None  # the checkpoint has none, and none is made up


# What goes wrong


def test_a_misspelt_folder_names_the_nearest(llama: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"Did you mean .*tiny-llama"):
        load_model(llama.parent / "tiny-lama")
    with pytest.raises(ModelNotFoundError, match="does not exist either"):
        load_model(llama.parent / "nowhere" / "tiny-llama")
    with pytest.raises(ModelNotFoundError, match="is a file; give the folder"):
        load_model(llama / "model.safetensors")
    with pytest.raises(ModelNotFoundError, match=r"no config.json.*Did you mean '.*tiny-llama'"):
        load_model(llama.parent)
    with pytest.raises(ModelNotFoundError, match="Accepted are 'demo'"):
        load_model("not a model: at all")


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "bare", tokenizer=False)
    with pytest.raises(TokenizerMissingError, match="tokenizer="):
        load_model(folder)
    with pytest.raises(TokenizerMissingError, match="without a tokenizer"):
        load_model(tiny_model())
    tiny_tokenizer().save_pretrained(tmp_path / "words")
    assert load_model(folder, tokenizer=tmp_path / "words").fingerprint == (
        load_model(folder, tiny_tokenizer()).fingerprint
    )
    with pytest.raises(ConfigError, match="int is not accepted"):
        load_model(folder, tokenizer=3)  # type: ignore[arg-type]


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "small")
    embedding = load_file(folder / "model.safetensors")
    embedding["model.embed_tokens.weight"] = embedding["model.embed_tokens.weight"][:100].clone()
    save_file(embedding, folder / "model.safetensors", metadata={"format": "pt"})
    edit_config(folder, vocab_size=100)
    with pytest.raises(ConfigError, match="260 tokens and the model embeds 100"):
        load_model(folder)


class Command:
    """What a pickle can run where anything in it is believed."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("it-ran",)


@pytest.mark.parametrize("shard", ["5GB", "10KB"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pickled_tensors_are_read(llama: Path, dtype: str, shard: str) -> None:
    expected = load_model(llama, dtype=dtype)
    state = load_file(llama / "model.safetensors")
    (llama / "model.safetensors").unlink()
    if shard == "5GB":
        torch.save(state, llama / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    else:
        names = {n: f"pytorch_model-{i % 2 + 1:05}-of-00002.bin" for i, n in enumerate(state)}
        for file in set(names.values()):
            torch.save({n: t for n, t in state.items() if names[n] == file}, llama / file)
        index = {"metadata": {}, "weight_map": names}
        (llama / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    model = load_model(llama, dtype=dtype)
    assert model.fingerprint == expected.fingerprint
    assert model.stored_dtype == torch.float16
    if shard == "10KB":
        (llama / "pytorch_model-00002-of-00002.bin").unlink()
        with pytest.raises(ModelNotFoundError, match=r"incomplete: pytorch_model-00002"):
            load_model(llama)


def test_a_pickle_that_holds_more_than_tensors_is_not_opened(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(llama)
    (llama / "model.safetensors").unlink()
    for held in ({"a": Command()}, Command()):
        torch.save(held, llama / "pytorch_model.bin")
        with pytest.raises(UnsupportedArchitectureError, match="can run code, so it is not opened"):
            load_model(llama)
    torch.save([torch.ones(2)], llama / "pytorch_model.bin")
    with pytest.raises(UnsupportedArchitectureError, match="no dictionary of tensors"):
        load_model(llama)
    (llama / "pytorch_model.bin").rename(llama / "weights.pt")
    with pytest.raises(UnsupportedArchitectureError, match=r"weights\.pt.*name it pytorch_model"):
        load_model(llama)
    assert not (llama / "it-ran").exists()


def test_missing_and_broken_weights(llama: Path) -> None:
    weights = llama / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-10])
    with pytest.raises(ModelNotFoundError, match="not a whole safetensors file"):
        load_model(llama)
    weights.write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ModelNotFoundError, match="LFS"):
        load_model(llama)
    weights.unlink()
    (llama / "weights.safetensors").write_bytes(data)
    with pytest.raises(ModelNotFoundError, match=r"rename it"):
        load_model(llama)
    (llama / "weights.safetensors").rename(llama / "model.gguf")
    with pytest.raises(ModelNotFoundError, match=r"model.gguf .* is not a whole GGUF file"):
        load_model(llama)


def test_missing_tensors_are_not_made_up(llama: Path) -> None:
    tensors = load_file(llama / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedArchitectureError, match="lacks 1 weights"):
        load_model(llama)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "nonesuch"}, "does not know model_type 'nonesuch'"),
        ({"model_type": None}, "names no model_type"),
        ({"architectures": None}, "names no architecture"),
        ({"model_type": "t5", "architectures": ["T5Model"]}, "encoder-decoder"),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, "not a text model"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized already"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}, "trust_remote_code=True"),
    ],
)
def test_unsupported_architectures(changes: dict[str, Any], message: str, llama: Path) -> None:
    edit_config(llama, **changes)
    (llama / "own.py").write_text("raise SystemExit('this code must not run')")
    with pytest.raises(UnsupportedArchitectureError, match=message):
        load_model(llama)


def test_a_broken_config(llama: Path) -> None:
    (llama / "config.json").write_text("{")
    with pytest.raises(ModelNotFoundError, match="not JSON"):
        load_model(llama)


def test_too_little_memory_is_known_before_loading(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "free_memory", lambda device: 20_000)
    (llama / "model.safetensors").write_bytes(b"")  # would be another error if it were read
    with pytest.raises(NotEnoughMemoryError, match=r'needs about .* GB .* dtype="bfloat16"'):
        load_model(llama, memory="resident")
    with pytest.raises(NotEnoughMemoryError, match="smaller model"):
        load_model(tiny_model(), tiny_tokenizer())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device='gpu'"),
        ({"device": "cuda:99"}, "not available"),
        ({"dtype": "int4"}, "dtype='int4'.*'bfloat16'"),
        ({"revision": "main"}, "no meaning for the folder"),
    ],
)
def test_options_that_are_not_accepted(options: Any, message: str, llama: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_model(llama, **options)


def test_other_objects_are_refused() -> None:
    with pytest.raises(ConfigError, match="Linear is not accepted"):
        load_model(torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="head of 2 labels"):
        ClassificationHead(torch.zeros(3, 4), torch.zeros(3), ("a", "b"))


def test_the_bundled_model() -> None:
    model: LoadedModel = load_model("demo")
    assert (model.source.kind, model.source.name) == ("demo", "demo")
    assert model.stored_dtype == torch.float16
    assert model.is_decoder
    assert model.generate("import os\n\ndef main(", max_new_tokens=4)
    with pytest.raises(ConfigError, match="revision"):
        load_model("demo", revision="main")


def test_a_revision_is_a_text() -> None:
    class Wordless:
        def __repr__(self) -> str:
            raise RuntimeError("no words")

    with pytest.raises(ConfigError, match="revision"):
        load_model("org/model", revision=Wordless())  # type: ignore[arg-type]
