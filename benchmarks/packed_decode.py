"""Decode and prefill speed of packed layers against dense ones, torchao and llama.cpp.

    python benchmarks/packed_decode.py --llama-python PY --torchao-python PY

A Llama of random weights, 1,024 wide with 16 blocks (speed does not depend on the values), rounded
to symmetric 4-bit codes in groups of 32, its tied table of embeddings to 8 bits by row. The same
codes go to llama.cpp through a GGUF file: groups of 32 are Q4_0 exactly, rows of 8 bits are Q8_0
with one scale throughout. Before anything is timed the logits of llama.cpp and of our short path
are compared with those of the dense model made from the same codes. Every contender reads the same
prompt and then one token at a time. Contenders take turns within each repeat, medians are
reported. A peer without an interpreter is reported as missing.

A ratio is of one path unless its label says "mixed": the short path saves operations between the
products for dense layers too, and joins q, k and v, and gate and up, for dense layers as for
packed ones. llama.cpp runs with and without flash attention, and ours is compared with the faster.

llama.cpp rounds its inputs to 8 bits, the others compute in bfloat16 or float32. torchao rounds
the weights anew (it takes dense ones) and leaves the table in bfloat16, which costs it time: its
line with a bfloat16 table of ours beside it is the like-for-like comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peers.client import Peer
from peers.report import hardware, load_average
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from workbench.models.layers import find_linears
from workbench.models.loaded import LoadedModel, ModelSource
from workbench.recipes.schemes import IntScheme
from workbench.runtime.packed import Decoder, pack_model
from workbench.tensors import affine
from workbench.tensors.weights import QuantizedWeight

HERE = Path(__file__).parent
Q4_0, Q8_0 = IntScheme(4, 32, True), IntScheme(8, None, True)
FLASH = ", flash attention"
Contender = Callable[[list[int], int], dict[str, float]]

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def build(arguments: argparse.Namespace) -> LoadedModel:
    """Return the dense model, float32."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=arguments.width,
        intermediate_size=arguments.width * 11 // 4,
        num_hidden_layers=arguments.blocks,
        num_attention_heads=arguments.width // 64,
        num_key_value_heads=arguments.width // 64,
        vocab_size=arguments.vocabulary,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    source = ModelSource("live", "random", None, "LlamaForCausalLM", "random Llama")
    return LoadedModel(model, None, source, torch.float16)  # type: ignore[arg-type]


def rounded(weight: Tensor, scheme: IntScheme) -> QuantizedWeight:
    scales, zeros = affine.choose_scales(weight, scheme)
    codes = affine.quantize(weight, scales, zeros, scheme)
    return QuantizedWeight.from_codes(codes, scales, zeros, scheme)


def compressed(dense: LoadedModel, scheme: IntScheme, *, table: bool) -> LoadedModel:
    """Return the model with rounded blocks, and with an 8-bit table of embeddings if asked."""
    model = dense.copy()
    for name, site in find_linears(model.hf_model).items():
        model.set_weight(name, rounded(site.matrix, scheme))
    if table:
        name = "model.embed_tokens"
        model.set_weight(name, rounded(model.site(name).matrix, Q8_0))
    return model


def blocks_of(weight: QuantizedWeight) -> tuple[str, np.ndarray]:
    """Return the format and a weight's blocks as bytes, (rows, bytes), as llama.cpp stores them."""
    rows, columns = weight.shape
    codes = weight.codes.numpy().reshape(rows, columns // 32, 32)
    scales = (
        weight.scales.expand(rows, columns // 32) if weight.scales.shape[1] == 1 else weight.scales
    )
    scale_bytes = scales.contiguous().numpy().view(np.uint8).reshape(rows, columns // 32, 2)
    if weight.scheme.bits == 4:
        body, name = codes[:, :, :16] | codes[:, :, 16:] << 4, "Q4_0"
    else:
        body, name = (codes.astype(np.int16) - 128).astype(np.int8).view(np.uint8), "Q8_0"
    return name, np.concatenate([scale_bytes, body], -1).reshape(rows, -1)


def tensors_of(model: LoadedModel) -> dict[str, np.ndarray]:
    """Return every tensor for ``llamacpp_worker.py``, by its name in GGUF and its format."""
    config: Any = model.hf_model.config
    found: dict[str, np.ndarray] = {}
    for name, weight in model.weights.items():
        assert isinstance(weight, QuantizedWeight)
        kind, blocks = blocks_of(weight)
        if name.endswith(("q_proj", "k_proj")):  # llama.cpp rotates neighbours, not halves
            blocks = (
                blocks.reshape(config.num_attention_heads, 2, -1, blocks.shape[1])
                .swapaxes(1, 2)
                .reshape(blocks.shape)
            )
        found[f"{_gguf_name(name)}:{kind}"] = np.ascontiguousarray(blocks)
    for name, parameter in model.hf_model.named_parameters():
        if parameter.ndim == 1:
            found[f"{_gguf_name(name.removesuffix('.weight'))}:F32"] = parameter.float().numpy()
    return found


def _gguf_name(name: str) -> str:
    if name == "model.embed_tokens":
        return "token_embd.weight"
    if name == "model.norm":
        return "output_norm.weight"
    number, _, rest = name.removeprefix("model.layers.").partition(".")
    return f"blk.{number}.{_NAMES[rest]}.weight"


def short_path(model: Any, capacity: int) -> Contender:
    """Return a contender on the workbench's own decoding path."""
    decoder = Decoder(model, capacity)

    def run(prompt: list[int], new_tokens: int) -> dict[str, float]:
        start = time.perf_counter()
        token = decoder.prefill(prompt).argmax()
        int(token)
        middle = time.perf_counter()
        for _ in range(new_tokens):
            token = decoder.step(token).argmax()
        int(token)
        return {"prefill": middle - start, "decode": time.perf_counter() - middle}

    return run


def check_short_path(model: LoadedModel, packed: Any, prompt: list[int]) -> float:
    """Return how far the timed path's logits are from those of the dense weights (0 is equal).

    Raises
    ------
    RuntimeError
        If they are a tenth apart, after the prompt or after a few further tokens.
    """
    ids = [*prompt, *prompt[:4]]
    decoder = Decoder(packed, len(ids))
    given = [decoder.prefill(prompt), *(decoder.step(token) for token in prompt[:4])]
    with torch.inference_mode():
        expected = model.hf_model(torch.tensor([ids]), logits_to_keep=5).logits[0].float()
    differences = (torch.stack(given).float() - expected).norm(dim=-1)
    apart = float((differences / expected.norm(dim=-1)).max())
    if not apart < 0.1:
        raise RuntimeError(
            f"The short path computes other logits ({apart:.0%} apart) than the dense weights, so"
            " its time says nothing."
        )
    return apart


def transformers_path(model: Any) -> Contender:
    """Return a contender on transformers' modules and its default cache."""

    @torch.inference_mode()
    def run(prompt: list[int], new_tokens: int) -> dict[str, float]:
        start = time.perf_counter()
        out = model(torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        middle = time.perf_counter()
        for _ in range(new_tokens):
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
        return {"prefill": middle - start, "decode": time.perf_counter() - middle}

    return run


def peer_path(peer: Peer, name: str) -> Contender:
    """Return a contender in a peer's process."""

    def run(prompt: list[int], new_tokens: int) -> dict[str, float]:
        return peer.run({"time": name, "prompt": prompt, "new_tokens": new_tokens})

    return run


def start_llama(
    peer: Peer, folder: Path, models: dict[str, LoadedModel], prompt: list[int], context: int
) -> dict[str, float]:
    """Write the GGUF files, load them, and return how far the logits are from ours (0 is equal)."""
    apart = {}
    for name, model in models.items():
        config: Any = model.hf_model.config
        about = {
            "context": config.max_position_embeddings,
            "hidden": config.hidden_size,
            "blocks": config.num_hidden_layers,
            "intermediate": config.intermediate_size,
            "heads": config.num_attention_heads,
            "key_heads": config.num_key_value_heads,
            "epsilon": config.rms_norm_eps,
            "rope_theta": config.rope_parameters["rope_theta"],
            "vocabulary": config.vocab_size,
        }
        arrays, file = folder / f"{name}.npz", folder / f"{name}.gguf"
        np.savez(arrays, **tensors_of(model))  # type: ignore[arg-type]
        peer.run({"write": str(arrays), "to": str(file), "about": about})
        arrays.unlink()
        with torch.inference_mode():
            ours = model.hf_model(torch.tensor([prompt])).logits[0, -1].float()
        for key, flash in ((name, False), (name + FLASH, True)):
            peer.run({"load": str(file), "as": key, "context": context, "flash_attention": flash})
            theirs = torch.tensor(peer.run({"logits": key, "prompt": prompt})["logits"])
            apart[key] = float((ours - theirs).norm() / ours.norm())
            if not apart[key] < 0.1:
                raise RuntimeError(
                    f"llama.cpp's {key} computes other logits ({apart[key]:.0%} apart), so it does"
                    " not run the same weights and its time says nothing."
                )
    return apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--llama-python", type=Path, help="has llama-cpp-python and gguf")
    parser.add_argument("--torchao-python", type=Path, help="has torch, torchao, transformers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "packed_decode.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":
        print("OMP_WAIT_POLICY=PASSIVE slows every contender with short parallel parts; unset it.")

    capacity = arguments.prompt + arguments.new_tokens + 1
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randint(
        300, arguments.vocabulary, (arguments.prompt,), generator=generator
    ).tolist()
    dense = build(arguments)
    int4, int8 = compressed(dense, Q4_0, table=True), compressed(dense, Q8_0, table=True)
    contenders: dict[str, Contender] = {}
    missing: dict[str, str] = {}
    about: dict[str, Any] = {"torch": torch.__version__, "transformers": transformers.__version__}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def start(key: str, python: Path | None, worker: str) -> Peer | None:
            if python is None:
                missing[key] = f"no --{key}-python was given"
                return None
            peer = Peer(
                python,
                threads=arguments.threads,
                log=folder / f"{key}.log",
                worker=HERE / "peers" / worker,
                name=key,
            )
            about[key] = peer.about
            return stack.enter_context(peer)

        llama = start("llama", arguments.llama_python, "llamacpp_worker.py")
        apart: dict[str, float] = {}
        if llama is not None:
            both = {"Q4_0": int4, "Q8_0": int8}
            apart = start_llama(llama, folder, both, prompt, -(-capacity // 32) * 32)
        torchao = start("torchao", arguments.torchao_python, "torchao_worker.py")
        if torchao is not None:
            dense.hf_model.save_pretrained(folder / "dense")
            try:
                torchao.run({"load": str(folder / "dense"), "as": "int4", "group_size": 32})
            except RuntimeError as error:
                missing["torchao"], torchao = str(error), None

        bfloat16 = pack_model(dense).hf_model
        packed4, packed8 = pack_model(int4), pack_model(int8)
        reports = {"int4": packed4.report.facts(), "int8": packed8.report.facts()}
        short_apart = {
            "dense": check_short_path(dense, bfloat16, prompt),
            "int4": check_short_path(int4, packed4.hf_model, prompt),
            "int8": check_short_path(int8, packed8.hf_model, prompt),
        }
        packed4_bfloat16_table = pack_model(compressed(dense, Q4_0, table=False)).hf_model
        contenders["dense float32, transformers"] = transformers_path(dense.hf_model)
        contenders["dense bfloat16, transformers"] = transformers_path(bfloat16)
        contenders["dense bfloat16, short path"] = short_path(bfloat16, capacity)
        contenders["int4, transformers"] = transformers_path(packed4.hf_model)
        contenders["int4, short path"] = short_path(packed4.hf_model, capacity)
        contenders["int4, bfloat16 table, short path"] = short_path(
            packed4_bfloat16_table, capacity
        )
        contenders["int4, bfloat16 table, transformers"] = transformers_path(packed4_bfloat16_table)
        contenders["int8, short path"] = short_path(packed8.hf_model, capacity)
        if torch.cpu._is_vnni_supported():
            rounded8 = pack_model(int8, int8_inputs=True).hf_model
            contenders["int8 with int8 inputs, short path"] = short_path(rounded8, capacity)
        else:
            missing["int8 with int8 inputs"] = "this processor has no VNNI instructions"
        if torchao is not None:
            contenders["torchao int4, bfloat16 table, transformers"] = peer_path(torchao, "int4")
        if llama is not None:
            for name in apart:
                contenders[f"llama.cpp {name}"] = peer_path(llama, name)
        times = measure(contenders, prompt, arguments)

    rows = summarise(times, arguments)
    ratios = compare(rows)
    report(rows, ratios, missing)
    n_weights = dense.n_parameters
    result = {
        "what": "decode and prefill, tokens per second; medians of repeats in turn",
        "model": f"Llama, {arguments.width} wide, {arguments.blocks} blocks, {n_weights:,} weights",
        "prompt_tokens": arguments.prompt,
        "new_tokens": arguments.new_tokens,
        "hardware": hardware(arguments.threads),
        "load_average": load_average(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "versions": about,
        "packed": reports,
        "logits_apart_from_llama_cpp": apart,
        "logits_apart_on_the_short_path": short_apart,
        "missing": missing,
        "rows": rows,
        "ratios": ratios,
        "seconds": times,
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"Wrote {arguments.output}")


def measure(
    contenders: dict[str, Contender], prompt: list[int], arguments: argparse.Namespace
) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of every repeat; each contender runs once before anything counts."""
    times: dict[str, dict[str, list[float]]] = {
        n: {"prefill": [], "decode": []} for n in contenders
    }
    for repeat in range(arguments.repeats + 1):
        names = list(contenders)
        if repeat % 2:
            names.reverse()
        for name in names:
            found = contenders[name](prompt, arguments.new_tokens if repeat else 4)
            if repeat:
                for stage in ("prefill", "decode"):
                    times[name][stage].append(round(found[stage], 5))
    return times


def summarise(
    times: dict[str, dict[str, list[float]]], arguments: argparse.Namespace
) -> dict[str, dict[str, float]]:
    counts = {"prefill": arguments.prompt, "decode": arguments.new_tokens}
    rows: dict[str, dict[str, float]] = {}
    for name, stages in times.items():
        rows[name] = {}
        for stage, seconds in stages.items():
            speeds = sorted(counts[stage] / s for s in seconds)
            rows[name][stage] = round(statistics.median(speeds), 1)
            rows[name][f"{stage}_best"] = round(speeds[-1], 1)
            rows[name][f"{stage}_worst"] = round(speeds[0], 1)
    return rows


def compare(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return ratios of decode speeds: those of one path first, then peers, then mixed ones."""
    short, long = "short path", "transformers"
    pairs = {
        "short path: int4 / dense bfloat16": (f"int4, {short}", f"dense bfloat16, {short}"),
        "transformers: int4 / dense bfloat16": (f"int4, {long}", f"dense bfloat16, {long}"),
        "transformers: int4 / dense float32": (f"int4, {long}", f"dense float32, {long}"),
        "int4, short path / llama.cpp Q4_0": (f"int4, {short}", _faster(rows, "Q4_0")),
        "int8, short path / llama.cpp Q8_0": (f"int8, {short}", _faster(rows, "Q8_0")),
        "int8 with int8 inputs, short path / llama.cpp Q8_0": (
            f"int8 with int8 inputs, {short}",
            _faster(rows, "Q8_0"),
        ),
        "transformers: int4 with a bfloat16 table / torchao int4": (
            f"int4, bfloat16 table, {long}",
            f"torchao int4, bfloat16 table, {long}",
        ),
        "mixed: int4 with a bfloat16 table, short path / torchao int4, transformers": (
            f"int4, bfloat16 table, {short}",
            f"torchao int4, bfloat16 table, {long}",
        ),
        "mixed: int4, short path / dense bfloat16, transformers": (
            f"int4, {short}",
            f"dense bfloat16, {long}",
        ),
        "mixed: int4, short path / dense float32, transformers": (
            f"int4, {short}",
            f"dense float32, {long}",
        ),
    }
    return {
        label: round(rows[top]["decode"] / rows[below]["decode"], 2)
        for label, (top, below) in pairs.items()
        if top in rows and below in rows
    }


def _faster(rows: dict[str, dict[str, float]], name: str) -> str:
    """Return llama.cpp's contender of this format that decodes faster."""
    found = [f"llama.cpp {name}", f"llama.cpp {name}{FLASH}"]
    return max(found, key=lambda key: rows.get(key, {}).get("decode", 0.0))


def report(
    rows: dict[str, dict[str, float]], ratios: dict[str, float], missing: dict[str, str]
) -> None:
    print(f"{'tokens per second, median (worst to best)':46} {'decode':>24} {'prefill':>24}")
    for name, row in rows.items():
        cells = [
            f"{row[stage]:.1f} ({row[f'{stage}_worst']:.1f} to {row[f'{stage}_best']:.1f})"
            for stage in ("decode", "prefill")
        ]
        print(f"{name:46} {cells[0]:>24} {cells[1]:>24}")
    for label, ratio in ratios.items():
        print(f"decode, {label}: {ratio:.2f}")
    for peer, why in missing.items():
        print(f"Missing: {peer}: {why}")


if __name__ == "__main__":
    main()
