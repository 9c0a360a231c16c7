"""The device has one home, and what is asked of it there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch

import workbench
from tests.fake_device import fake_device
from workbench.errors import ConfigError
from workbench.methods.lowrank import gram_root, low_rank_correction
from workbench.tasks.scoring import score
from workbench.tensors import devices
from workbench.tensors.devices import (
    choose_device,
    compute_dtype,
    free_memory,
    in_float64,
    seeded,
    seeded_generator,
)
from workbench.tensors.least_squares import refit
from workbench.tensors.linalg import inverse_factor

PACKAGE = Path(workbench.__file__).parent
HOME = PACKAGE / "tensors" / "devices.py"
KIND = re.compile(r"(cuda|mps)(:\d+)?")
CUDA, MPS = torch.device("cuda"), torch.device("mps")


def kinds_named_in(path: Path) -> list[str]:
    """Return where a file names a kind of GPU, or asks torch for one."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = KIND.fullmatch(node.value) is not None
        else:
            named = isinstance(node, ast.Attribute) and KIND.fullmatch(node.attr) is not None
        if named:
            found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    return found


def test_only_their_home_names_kinds_of_gpus() -> None:
    assert len(kinds_named_in(HOME)) > 10
    others = [path for path in PACKAGE.rglob("*.py") if path != HOME]
    assert [place for path in others for place in kinds_named_in(path)] == []


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000 * (device.index + 1), 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7 + device.index, 5))


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 5000)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 2000)


def test_the_second_gpu_can_be_named(two_gpus: None) -> None:
    assert choose_device("auto") == torch.device("cuda", 0)
    second = choose_device("cuda:1")
    assert second == torch.device("cuda", 1)
    assert free_memory(second) == 2000
    assert devices.device_name(second) == "Card 1"
    assert devices.has_tinygemm(second)
    assert not devices.has_tinygemm(torch.device("cuda", 0))
    with pytest.raises(ConfigError, match=r"has 'cpu', 'cuda:0', 'cuda:1'"):
        choose_device("cuda:2")


def test_mps_is_taken_where_it_is(apple: None) -> None:
    assert choose_device("auto") == torch.device("cpu")
    assert choose_device("mps") == MPS
    assert free_memory(MPS) == 3000


@pytest.mark.parametrize("device", ["mps", "cuda", "cuda:1", "tpu", "meta", 3.5])
def test_what_is_not_here_is_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="give"):
        choose_device(device)


def test_dtypes() -> None:
    assert compute_dtype(torch.device("cpu"), torch.bfloat16) == torch.float32
    assert compute_dtype(CUDA, torch.bfloat16) == torch.bfloat16
    assert compute_dtype(CUDA, torch.float64) == torch.float64
    assert compute_dtype(MPS, torch.float16) == torch.float16
    assert compute_dtype(MPS, torch.float64) == torch.float32, "it has no float64"


def test_float64_is_computed_on_the_cpu_where_the_device_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = torch.ones(2, device="meta")
    assert in_float64(there).device.type == "meta"
    moved = []
    monkeypatch.setattr(devices, "has_float64", lambda device: False)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: moved.append(1) or torch.ones(2))
    found = in_float64(there)
    assert (moved, found.device.type, found.dtype) == ([1], "cpu", torch.float64)


def test_seeds_leave_what_the_user_draws_as_it_is() -> None:
    cpu = torch.device("cpu")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(cpu, 1):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(cpu, 1):
        assert torch.equal(torch.rand(3), first)
    drawn = torch.rand(3, generator=seeded_generator(cpu, 1))
    assert torch.equal(drawn, first)


def test_only_the_models_own_device_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of other devices is not kept, so that they must not be seeded."""
    seeds: list[str] = []
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seeds.append("cuda"))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: seeds.append("all"))
    monkeypatch.setattr(torch.mps, "manual_seed", lambda seed: seeds.append("mps"))
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: "before")
    monkeypatch.setattr(torch.mps, "set_rng_state", seeds.append)
    with seeded(torch.device("cpu"), 1):
        pass
    assert seeds == []
    with seeded(MPS, 1):
        assert seeds == ["mps"]
    assert seeds == ["mps", "before"]


def test_factorizations_and_scores_on_a_device_without_float64(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, rows = (torch.randn(n, 8, generator=generator) for n in (6, 50))
    logits, targets = torch.randn(5, 7, generator=generator), torch.arange(5)
    given = (weight, rows.T @ rows, torch.tensor([0, 1, 2, 5, 7]), logits, targets)

    def results(w, gram, keep, logits, targets):
        yield from low_rank_correction(w, gram_root(gram), 2)
        yield refit(w, gram, keep, damping=0.01)
        yield inverse_factor(gram, damping=0.01, act_order=True).upper
        yield from vars(score(logits, targets)).values()

    expected = list(results(*given))
    with fake_device(monkeypatch, "mps") as device:
        there = [tensor.to(device) for tensor in given]
        with pytest.raises(TypeError, match="float64"):
            there[0].double()
        with pytest.raises(RuntimeError, match="several devices"):
            there[0] @ given[1]
        found = list(results(*there))
    assert [x.device.type for x in found[:3]] == ["mps"] * 3
    pairs = zip((getattr(x, "held", x) for x in found), expected, strict=True)
    assert all(torch.equal(x, y) or bool(y.isnan().all()) for x, y in pairs)
