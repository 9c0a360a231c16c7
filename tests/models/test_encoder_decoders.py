"""Encoder-decoders are loaded, counted, found, solved block by block, packed and exported."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import transformers

from tests.tasks.test_generation import extraction
from tests.tiny import tiny_folder, tiny_model, tiny_tokenizer
from workbench.calibration.calibrate import CalibrationOptions, Calibrator
from workbench.compression.compress import compress
from workbench.errors import ExportError, UnsupportedArchitectureError
from workbench.methods import finetune
from workbench.models.architectures import decoder_start_token
from workbench.models.layers import block_sides, shared_inputs
from workbench.models.load import load_model, save_model
from workbench.prediction.tabulate import tabulate
from workbench.recipes import (
    GPTQ,
    RTN,
    DepthPruning,
    Distillation,
    FineTuning,
    QuantizeEmbeddings,
    WidthPruning,
)
from workbench.recipes.recipe import Recipe
from workbench.runtime.measure.generation import make_generator
from workbench.runtime.packed import pack_model
from workbench.study import Study

FEW = CalibrationOptions(solve_tokens=512, judge_tokens=256, sequence_length=64)


def t5():
    return load_model(tiny_model("T5").eval(), tiny_tokenizer(), device="cpu")


@pytest.mark.parametrize("kind", ["T5", "BartForConditionalGeneration"])
def test_a_folder_is_loaded_as_what_writes_text_and_counted_once(tmp_path, kind):
    model = load_model(tiny_folder(tmp_path / "a", kind, dtype=torch.float32))
    assert model.is_encoder_decoder
    assert not model.is_decoder
    assert type(model.hf_model).__name__.endswith("ForConditionalGeneration")
    assert model.n_parameters == sum(p.numel() for p in model.hf_model.parameters())
    again = load_model(save_model(model, tmp_path / "b"))
    assert again.fingerprint == model.fingerprint
    assert again.size_bytes == model.size_bytes
    said = model.generate("hello", max_new_tokens=4)
    assert isinstance(said, str)
    assert again.generate("hello", max_new_tokens=4) == said
    shared = model.hf_model.get_input_embeddings().weight.numel()
    tables = compress(model, Recipe.of(QuantizeEmbeddings(8)))
    assert model.size_bytes - tables.model.size_bytes == pytest.approx(3 * shared, rel=0.1)


def test_an_encoder_alone_and_a_model_without_a_head(tmp_path):
    whole = tiny_model("T5")
    transformers.T5EncoderModel(whole.config).save_pretrained(tmp_path / "encoder")
    tiny_tokenizer().save_pretrained(tmp_path / "encoder")
    model = load_model(tmp_path / "encoder")
    assert type(model.hf_model) is transformers.T5EncoderModel
    assert not model.is_encoder_decoder
    config = json.loads((tmp_path / "encoder" / "config.json").read_text())
    config |= {"architectures": ["T5Model"], "is_encoder_decoder": True}
    (tmp_path / "encoder" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedArchitectureError, match="writes no text"):
        load_model(tmp_path / "encoder")


def test_outputs_that_do_not_fit_into_float16_stay_float32():
    placed = load_model(tiny_model("T5"), tiny_tokenizer(), dtype="float16", device="cpu").hf_model
    kinds = {n.split(".")[-2]: p.dtype for n, p in placed.named_parameters()}
    assert kinds["wo"] is torch.float32
    assert kinds["wi_0"] is kinds["q"] is torch.float16


def test_whose_tokens_enter_a_layer_is_seen_in_the_probe():
    model = t5()
    groups = {group.key: group for group in shared_inputs(model.hf_model)}
    cross = groups["decoder.block.0.layer.1.EncDecAttention.k"]
    assert set(cross.names) == {
        f"decoder.block.{i}.layer.1.EncDecAttention.{x}" for i in (0, 1) for x in "kv"
    }
    assert cross.side == "encoder"
    for key, group in groups.items():
        assert group is cross or group.side == key.split(".")[0]
    gated = groups["encoder.block.0.layer.1.DenseReluDense.wi_0"]
    assert gated.names[1].endswith("wi_1")
    assert list(block_sides(model.hf_model).values()) == ["encoder"] * 2 + ["decoder"] * 2


@torch.no_grad()
def test_block_by_block_the_decoder_sees_what_the_compressed_encoder_gives(tmp_path, monkeypatch):
    from workbench.compression import sequential

    model = t5()
    calibrator = Calibrator(extraction(shots=0), FEW, folder=tmp_path)
    batches = calibrator.batches(model)["solve"]
    seen = {}
    real = sequential.solve_group

    def check(method, dense, half_done, group, statistics, step, facts):
        if group.key in ("encoder.block.1.layer.0.SelfAttention.q", CROSS):
            sums = torch.zeros_like(statistics.solve.gram)
            owner = half_done.hf_model.get_submodule(group.key)
            masks = {"encoder": "attention_mask", "decoder": "decoder_attention_mask"}

            def hook(_module, args):
                rows = args[0][batch[masks[group.side]].bool()]
                sums.add_(rows.T @ rows)

            handle = owner.register_forward_pre_hook(hook)
            for batch in batches:
                half_done.hf_model(**batch)
            handle.remove()
            seen[group.key] = float((statistics.solve.gram - sums).norm() / sums.norm())
        real(method, dense, half_done, group, statistics, step, facts)

    monkeypatch.setattr(sequential, "solve_group", check)
    result = compress(model, Recipe.of(GPTQ(2, group_size=8, sequential=True)), calibrator)
    assert len(seen) == 2
    assert max(seen.values()) < 1e-4
    assert len(result.model.weights) == len(result.facts["layer_errors"])


CROSS = "decoder.block.0.layer.1.EncDecAttention.k"


@torch.no_grad()
def test_packed_it_writes_what_its_dense_copy_writes():
    model = compress(t5(), Recipe.of(RTN(8, group_size=None))).model
    packed = pack_model(model, dtype=torch.float32)
    ids, target = torch.tensor([[5, 9, 77, 120, 33]]), torch.tensor([[0, 44, 9]])
    expected = model.hf_model(input_ids=ids, decoder_input_ids=target).logits
    found = packed.hf_model(input_ids=ids, decoder_input_ids=target).logits
    assert float((found - expected).abs().max() / expected.abs().max()) < 0.05
    assert "int8" in packed.report.label
    generator = make_generator(packed, 64, prompt_tokens=6, new_tokens=3)
    assert generator.workload == "3 tokens after 6"
    first, rest = generator()
    assert first > 0 < rest


SMALL = {
    "vocab_size": 260,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SIDE = {
    "vocab_size": 260,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def made(kind, **config):
    config = getattr(transformers, f"{kind}Config")(**config)
    torch.manual_seed(0)
    hf_model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    return load_model(hf_model.eval(), tiny_tokenizer(), device="cpu")


def t5gemma():
    return made("T5Gemma", encoder=dict(SIDE), decoder=dict(SIDE), vocab_size=260)


def test_the_decoder_starts_with_what_the_model_itself_shifts_in():
    model = t5gemma()
    shifted = model.hf_model._shift_right(torch.tensor([[44, 9]]))
    assert decoder_start_token(model.hf_model.config) == shifted[0, 0] == 1
    assert decoder_start_token(t5().hf_model.config) == 0


def test_outputs_that_are_read_by_their_names_are_timed():
    generator = make_generator(pack_model(t5gemma()), 64, prompt_tokens=6, new_tokens=2)
    first, rest = generator()
    assert first > 0 < rest


def test_a_table_of_positions_has_the_dtype_of_what_it_is_added_to():
    model = made("M2M100", **SMALL, decoder_start_token_id=2)
    before = model.hf_model.model.encoder.embed_positions.weights.clone()
    packed = pack_model(model, dtype=torch.bfloat16)
    first, rest = make_generator(packed, 64, prompt_tokens=6, new_tokens=2)()
    assert first > 0 < rest
    assert torch.equal(model.hf_model.model.encoder.embed_positions.weights, before)


@torch.no_grad()
def test_a_decoder_that_is_deeper_than_its_encoder_writes():
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "vocab_size": 260}
    model = made("T5", **sizes, num_layers=1, num_decoder_layers=3, decoder_start_token_id=0)
    ids, said = torch.tensor([[5, 9, 77]]), [0]
    for _ in range(4):
        logits = model.hf_model(input_ids=ids, decoder_input_ids=torch.tensor([said])).logits
        said.append(int(logits[0, -1].argmax()))
    written = model.write(ids, torch.ones_like(ids), max_new_tokens=4)
    assert written[0].tolist() == said[1 : 1 + written.shape[1]]


def test_an_answer_begins_with_the_language_that_every_target_begins_with():
    """Nothing else tells NLLB and mBART-50 which language to write."""
    pieces = ("<s>", "<pad>", "</s>", "<unk>", "\u2581", "a", "\u2581a", "b")
    tokenizer = transformers.MBart50Tokenizer(
        vocab=[(piece, -1.0) for piece in pieces], src_lang="en_XX", tgt_lang="de_DE"
    )
    model = dataclasses.replace(t5(), tokenizer=tokenizer)
    ids = torch.tensor([[5, 6], [6, 1]])
    written = model.write(ids, torch.tensor([[1, 1], [1, 0]]), max_new_tokens=2)
    assert set(written[:, 0].tolist()) == {tokenizer.convert_tokens_to_ids("de_DE")}
    assert tokenizer("a")["input_ids"][0] == tokenizer.convert_tokens_to_ids("en_XX")


def test_two_models_put_together_write():
    side = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    side |= {"intermediate_size": 24, "vocab_size": 260, "max_position_embeddings": 64}
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.BertConfig(**side),
        transformers.BertConfig(**side, is_decoder=True, add_cross_attention=True),
    )
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    model = load_model(transformers.EncoderDecoderModel(config), tiny_tokenizer(), device="cpu")
    ids = torch.tensor([[5, 9, 77]])
    assert model.write(ids, torch.ones_like(ids), max_new_tokens=2).shape == (1, 2)


def test_structure_is_not_changed_and_that_is_said_before_anything_is_run(tmp_path, monkeypatch):
    calibrator = Calibrator(extraction(shots=0), FEW, folder=tmp_path)
    monkeypatch.setattr(finetune, "train", lambda *_, **__: pytest.fail("it was trained"))
    for step in (DepthPruning(1), WidthPruning(0.5), Distillation(blocks=1)):
        with pytest.raises(UnsupportedArchitectureError, match="FineTuning and Distillation"):
            compress(t5(), Recipe.of([FineTuning(epochs=1), step]), calibrator)


def test_every_layer_has_a_cost_and_more_bits_cost_less(tmp_path):
    task = extraction(shots=0)
    calibrator = Calibrator(task, FEW, folder=tmp_path)
    table = tabulate(
        t5(), calibrator, tmp_path / "t.json", [RTN(4, group_size=16), RTN(2, group_size=16)]
    )
    assert len(table.groups) == 2 * 4 + 2 * 6 + 1
    four, two = (table.columns[RTN(bits, group_size=16)] for bits in (4, 2))
    assert (four > 0).all()
    assert (two > 3 * four).all()


def test_a_study_distils_exports_and_reads_the_export_back(tmp_path):
    task = extraction(shots=0)
    with Study(t5(), task, tmp_path / "study", calibration=FEW) as study:
        run = study.run(GPTQ(3, group_size=8))
        recovered = study.run(Distillation(epochs=1, hidden_weight=1.0))
        assert recovered.record.measurement("kl").value < 1e-3  # it is its own teacher
        said = study.side_by_side("Ada owes 5", [study.baseline(), run], max_new_tokens=4)
        assert len(said) == 2
        exported = run.export(tmp_path / "out", format="hf")
        assert exported.proof.relative < 1e-5
        with pytest.raises(ExportError, match="nearest format that can hold it is 'hf'"):
            run.export(tmp_path / "codes", format="compressed-tensors")
    back = load_model(tmp_path / "out")
    assert back.is_encoder_decoder
    again = task.evaluate(back)
    assert again["answer"].tolist() == run.outcomes()["answer"].tolist()
