"""Tests of plans: known models on known devices, and what the arithmetic must obey."""

from __future__ import annotations

import json
import math

import pytest
import torch
from transformers import AutoConfig
from transformers.modeling_outputs import BaseModelOutput

import workbench as wb
from tests.tiny import tiny_folder, tiny_model, tiny_tokenizer
from workbench.compression.compress import compress
from workbench.errors import (
    ConfigError,
    DataError,
    HubUnreachableError,
    ModelNotFoundError,
    UnsupportedArchitectureError,
)
from workbench.models.layers import find_linears
from workbench.models.load import load_model
from workbench.recipes import RTN
from workbench.recipes.recipe import Recipe
from workbench.recipes.schemes import IntScheme
from workbench.selection.planning import (
    PRECISIONS,
    Precision,
    footprint_of,
    known_devices,
    known_models,
)
from workbench.selection.planning.references import config_of


@pytest.mark.parametrize("name", known_models())
def test_bundled_configurations_have_as_many_parameters_as_published(name):
    known = known_models()[name]
    assert footprint_of(config_of(name)[1]).n_parameters == known["parameters"]
    assert known["source"].startswith("https://")


def test_70_billion_at_half_precision_take_about_140_gb():
    (row,) = wb.plan("llama-3.1-70b", "card 80 GB", precisions=["16-bit"]).rows
    assert row.weights_bytes == pytest.approx(140e9, rel=0.02)
    assert not row.fits
    assert row.longest_context == 0
    assert wb.plan("llama-3.1-70b", "2 cards of 80 GB", precisions=["16-bit"]).rows[0].fits


def test_7_billion_at_4_bits_fit_on_a_consumer_card():
    (row,) = wb.plan("llama-2-7b", "card 24 GB", precisions=["4-bit"]).rows
    assert row.fits
    assert 3.4e9 < row.weights_bytes < 4.2e9
    assert not wb.plan("llama-2-7b", "card 24 GB", precisions=["float32"]).rows[0].fits


def test_one_token_passes_through_some_experts_only():
    counted = footprint_of(config_of("mixtral-8x7b")[1])
    assert counted.n_active == pytest.approx(12.9e9, rel=0.01)  # Mixtral's paper, section 2
    form = PRECISIONS["16-bit"]
    one, many = counted.read_bytes(form, 1), counted.read_bytes(form, 64)
    assert one < 0.3 * counted.weight_bytes(form) < 0.9 * counted.weight_bytes(form) < many
    dense = footprint_of(config_of("llama-2-7b")[1])
    assert dense.n_active == dense.n_parameters


@pytest.mark.parametrize("kind", ["T5", "BartForConditionalGeneration"])
@torch.no_grad()
def test_a_token_that_an_encoder_decoder_writes_reads_what_it_runs_through(kind):
    model = tiny_model(kind).eval()
    counted = footprint_of(model.config)
    ids = torch.tensor([[5, 9, 77]])
    first = model(input_ids=ids, decoder_input_ids=ids[:, :1], use_cache=True)
    run = set()
    for name, site in find_linears(model).items():
        site.owner.register_forward_hook(lambda *_, name=name: run.add(name))
    model(
        encoder_outputs=BaseModelOutput(last_hidden_state=first.encoder_last_hidden_state),
        decoder_input_ids=ids[:, :1],
        past_key_values=first.past_key_values,
        use_cache=True,
    )
    read = sum(math.prod(site.shape) for name, site in find_linears(model).items() if name in run)
    every = sum(out * width * n for out, width, n, _ in counted.matrices)
    once = sum(out * width * n for out, width, n in counted.of_encoder)
    assert every - once == read
    assert counted.n_active == counted.n_parameters - once
    assert counted.intermediate_size in {out for out, _, _, _ in counted.matrices}
    form = PRECISIONS["float32"]
    assert counted.read_bytes(form, 1) == 4 * (read + counted.n_rest - counted.n_looked_up)


def test_the_cache_knows_groups_and_windows():
    # 2 (keys, values) x 32 layers x 8 heads x 128 x 2 bytes = 131,072 bytes a token
    llama = footprint_of(config_of("llama-3.1-8b")[1])
    assert llama.cache_bytes(1000, 2) == 131_072 * 1000 * 2
    mistral = footprint_of(config_of("mistral-7b-v0.1")[1])
    assert mistral.cache_bytes(8192, 1) == mistral.cache_bytes(4096, 1) == 131_072 * 4096
    gemma = footprint_of(config_of("gemma-3-1b")[1])
    full, window = 4 * 2 * 256 * 2, 22 * 2 * 256 * 2
    assert gemma.cache_bytes(4096, 1) == full * 4096 + window * 512


@pytest.mark.parametrize("architecture", ["Bert", "DistilBert", "DebertaV2", "ModernBert"])
def test_an_encoder_keeps_no_keys_and_values(architecture):
    config = tiny_model(architecture).config
    assert footprint_of(config).cache_bytes(512, 8) == 0


def test_a_name_that_is_nowhere_is_told_which_there_are(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises((ModelNotFoundError, HubUnreachableError), match=r"llama-3\.1-8b"):
        wb.plan("llama-3.1-9b")


def test_a_dense_model_is_read_once_per_token():
    counted = footprint_of(config_of("llama-2-7b")[1])
    card = next(d for d in known_devices() if d.name == "card 24 GB")
    (row,) = wb.plan("llama-2-7b", card, precisions=["16-bit"], context=1).rows
    read = 2 * (counted.n_parameters - 32000 * 4096) + counted.cache_bytes(1, 1)
    assert row.tokens_per_s == pytest.approx(card.bandwidth_bytes_per_s / read)
    batch = wb.plan("llama-2-7b", card, precisions=["4-bit"], context=1, batch=2000).rows[0]
    assert batch.tokens_per_s < 2000 * row.tokens_per_s  # arithmetic is the limit by then


def test_the_longest_context_just_fits():
    (row,) = wb.plan("llama-3.1-8b", "card 24 GB", precisions=["16-bit"]).rows
    assert 4096 < row.longest_context < 131072

    def fits(context):
        return (
            wb.plan("llama-3.1-8b", "card 24 GB", precisions=["16-bit"], context=context)
            .rows[0]
            .fits
        )

    assert fits(row.longest_context)
    assert not fits(row.longest_context + 1)


@pytest.mark.parametrize("architecture", ["Llama", "Mixtral", "GPT2", "Bert", "Falcon"])
def test_planned_bytes_are_the_size_of_the_compressed_model(architecture):
    model = load_model(tiny_model(architecture), tiny_tokenizer())
    small = compress(model, Recipe.of(RTN(4, group_size=8)), None).model
    form = Precision("4-bit", IntScheme(4, 8), model.stored_dtype.itemsize)
    planned = footprint_of(config_of(model)[1]).weight_bytes(form)
    assert planned == pytest.approx(small.size_bytes, rel=0.02)  # buffers are not planned


def test_configurations_come_from_anywhere(tmp_path):
    folder = tiny_folder(tmp_path / "tiny")
    raw = json.loads((folder / "config.json").read_text())
    config = AutoConfig.from_pretrained(folder)
    model = load_model(folder)
    found = [
        wb.plan(ref, "phone 8 GB", precisions=["16-bit"]).rows[0].weights_bytes
        for ref in (folder, folder / "config.json", raw, config, model)
    ]
    assert len(set(found)) == 1
    assert found[0] == model.size_bytes


def test_users_bring_their_own_devices(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('[{"name": "toaster", "memory_bytes": 1e9, "bandwidth_bytes_per_s": 1e9}]')
    (toaster,) = known_devices(path)
    found = wb.plan(["smollm2-135m", "llama-2-7b"], toaster, precisions=["8-bit"])
    assert [row.fits for row in found.rows] == [True, False]
    assert "smollm2-135m fits on toaster at 8-bit" in str(found)
    assert "llama-2-7b does not fit" in str(found)
    path.write_text('[{"name": "toaster"}]')
    with pytest.raises(DataError, match="no catalogue"):
        known_devices(path)


def test_a_context_beyond_the_models_own_is_said():
    found = wb.plan("demo", "phone 8 GB", precisions=["float32"], context=100_000)
    (row,) = found.rows
    assert row.context == found.table()["context"].item() < 100_000
    assert f"with its {row.context:,} tokens at most" in str(found)
    assert " 0.0 of" not in str(found)
    assert "tokens at most" not in str(wb.plan("llama-2-7b", "phone 8 GB", context=4096))


def test_table_and_figure_hold_the_same_numbers_and_say_estimated():
    found = wb.plan(["smollm2-135m", "mixtral-8x7b"])
    table, figure = found.table(), found.plot()
    heat = figure.data[0]
    assert len(table) == len(heat.y) * len(heat.x) == 2 * len(PRECISIONS) * len(known_devices())
    first = table.iloc[0]
    assert heat.text[0][0] == f"{first.total_gb:.3g}"
    assert "estimated" in figure.layout.title.text
    over = (table["total_gb"] > table["usable_gb"]).sum()
    assert over == sum(share > 1 for line in heat.z for share in line) == (~table["fits"]).sum()


def test_models_of_one_name_are_told_apart(tmp_path):
    folders = [tmp_path / part / "final" for part in ("one", "two")]
    for folder, width in zip(folders, (16, 32), strict=True):
        config = {"model_type": "gpt2", "n_embd": width, "n_layer": 1, "n_head": 2}
        config |= {"architectures": ["GPT2LMHeadModel"], "vocab_size": 64}
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config))
    refs = [folder / "config.json" for folder in folders]
    found = wb.plan(refs, "phone 8 GB", precisions=["16-bit"])
    assert [row.model for row in found.rows] == ["final", f"final ({refs[1]})"]
    assert len(found.plot().data[0].y) == 2
    assert len({row.total_bytes for row in found.rows}) == 2


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(ConfigError, match="card 24 GB"):
        wb.plan("llama-2-7b", "card 23 GB")
    with pytest.raises(ConfigError, match="context"):
        wb.plan("llama-2-7b", context=0)
    with pytest.raises(ConfigError, match="not known"):
        wb.plan("llama-2-7b", precisions=["5-bit"])
    with pytest.raises((ConfigError, UnsupportedArchitectureError)):
        wb.plan({"model_type": "no such thing"})
    with pytest.raises(ConfigError, match="above 0"):
        wb.Device("none", 0, 1)
    with pytest.raises(ConfigError, match="latent"):
        footprint_of(
            AutoConfig.for_model(
                "deepseek_v3",
                num_hidden_layers=1,
                first_k_dense_replace=0,
                n_routed_experts=8,
                vocab_size=64,
            )
        )
