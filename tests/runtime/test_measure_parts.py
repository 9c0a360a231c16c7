"""The parts of measuring: repeats, meters, conditions, and the memory of a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.runtime.test_pack_model import compress, llama
from tests.tiny import tiny_model, tiny_tokenizer
from workbench.errors import ConfigError, WorkbenchError
from workbench.models.load import load_model
from workbench.runtime.measure import memory
from workbench.runtime.measure.energy import open_meter
from workbench.runtime.measure.environment import conditions, warn_if_busy
from workbench.runtime.measure.generation import make_generator
from workbench.runtime.measure.timing import Summary, summarise, time_repeats
from workbench.runtime.packed import pack_model


def test_a_summary_is_median_and_quartiles() -> None:
    assert summarise([5.0, 1.0, 2.0, 3.0, 100.0]) == Summary(3.0, 3.0, 5)
    assert summarise([4.0]) == Summary(4.0, 0.0, 1)


def test_the_warm_up_is_not_counted() -> None:
    calls: list[int] = []
    told: list[int] = []
    seconds = time_repeats(lambda: calls.append(1), 3, warm_up=2, each=told.append)
    assert (len(calls), len(seconds), told) == (5, 3, [1, 2, 3])
    assert all(0 <= s < 1 for s in seconds)


class TestEnergy:
    def counter(self, folder: Path, name: str, microjoules: int, kind: str = "package-0") -> Path:
        domain = folder / name
        domain.mkdir(parents=True, exist_ok=True)
        (domain / "name").write_text(f"{kind}\n")
        (domain / "energy_uj").write_text(f"{microjoules}\n")
        (domain / "max_energy_range_uj").write_text("10000000\n")
        return domain

    def test_packages_are_added_and_their_parts_are_not(self, tmp_path: Path) -> None:
        for name in ("intel-rapl:0", "intel-rapl:1"):
            self.counter(tmp_path, name, 1_000_000)
        self.counter(tmp_path, "intel-rapl:0:0", 1_000_000, "core")
        self.counter(tmp_path, "intel-rapl:2", 1_000_000, "psys")
        meter = open_meter(powercap=tmp_path)
        assert meter is not None
        assert meter.read() == 0
        self.counter(tmp_path, "intel-rapl:0", 3_000_000)
        self.counter(tmp_path, "intel-rapl:0:0", 9_000_000, "core")
        self.counter(tmp_path, "intel-rapl:2", 9_000_000, "psys")
        self.counter(tmp_path, "intel-rapl:1", 1_500_000)
        assert meter.read() == 2.5

    def test_a_counter_that_starts_again(self, tmp_path: Path) -> None:
        self.counter(tmp_path, "intel-rapl:0", 9_000_000)
        meter = open_meter(powercap=tmp_path)
        assert meter is not None
        self.counter(tmp_path, "intel-rapl:0", 500_000)
        assert meter.read() == 1.5

    def test_the_gpu_that_is_visible_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        nvml = ModuleType("pynvml")
        nvml.nvmlInit = lambda: None
        nvml.nvmlDeviceGetHandleByIndex = lambda index: pytest.fail("that of another GPU")
        nvml.nvmlDeviceGetHandleByUUID = lambda uuid: uuid
        nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: joules[handle]
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        found = SimpleNamespace(uuid="1234-abcd")
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: found)
        joules = {"GPU-1234-abcd": 1000}
        meter = open_meter("cuda:0")
        assert meter is not None
        joules["GPU-1234-abcd"] = 3500
        assert meter.read() == 2.5

    def test_no_meter(self, tmp_path: Path) -> None:
        assert open_meter(powercap=tmp_path / "none") is None
        (self.counter(tmp_path, "intel-rapl:0", 1) / "energy_uj").write_text("")
        assert open_meter(powercap=tmp_path) is None
        if not torch.cuda.is_available():
            assert open_meter("cuda:0") is None


def test_conditions_name_the_threads() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = conditions()
        torch.set_num_threads(2)
        assert conditions() == one.replace("1 thread,", "2 threads,")
        assert conditions() != one
    finally:
        torch.set_num_threads(threads)


def test_conditions_say_what_matters_and_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    matters, rest = conditions("cpu", "8 tokens after 32").split(" | ")
    assert matters.endswith(" kernels, 8 tokens after 32")
    assert f"{os.cpu_count()} cores" in matters
    assert f"torch {torch.__version__}, workbench " in rest
    monkeypatch.setattr("platform.node", lambda: "another-pod")
    changed = conditions("cpu", "8 tokens after 32")
    assert changed.split(" | ")[0] == matters
    assert "host another-pod" in changed
    library = (None, "") if "compiled" in matters else (object(), "")
    monkeypatch.setattr("workbench.runtime.packed.native.native_library", lambda: library)
    assert conditions("cpu", "8 tokens after 32").split(" | ")[0] != matters


def test_a_busy_machine_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: 75.0)
    clocks = SimpleNamespace(monotonic=iter((0.0, 0.5)).__next__, process_time=lambda: 0.0)
    monkeypatch.setattr(sys.modules[warn_if_busy.__module__], "time", clocks)
    with pytest.warns(UserWarning, match=r"3\.0 of 4 cores"):
        warn_if_busy(2)


def test_our_own_work_does_not_make_it_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    passed, used = iter((0.0, 0.5)), iter((0.0, 1.5))  # three threads that wait in a loop
    clocks = SimpleNamespace(monotonic=passed.__next__, process_time=used.__next__)
    monkeypatch.setattr(sys.modules[warn_if_busy.__module__], "time", clocks)
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: 75.0)
    monkeypatch.setattr("os.getloadavg", lambda: (7.0, 0, 0))  # of the last minute
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_busy(2)


class TestGeneration:
    def test_a_llama_takes_the_short_path(self) -> None:
        generator = make_generator(pack_model(compress(llama())), 128, prompt_tokens=9)
        assert (generator.path, len(generator.prompt)) == ("short path", 9)
        first, rest = generator()
        assert first > 0
        assert rest > 0

    def test_others_take_that_of_transformers(self) -> None:
        model = load_model(tiny_model("GPT2LMHeadModel"), tiny_tokenizer())
        calls = []
        generator = make_generator(pack_model(model), 64, prompt_tokens=5, new_tokens=3)
        assert generator.path == "transformers"
        packed = pack_model(model)
        packed.hf_model.register_forward_hook(lambda *_: calls.append(1))
        make_generator(packed, 64, prompt_tokens=5, new_tokens=3)()
        assert len(calls) == 4  # the prompt, and one for each of three tokens

    def test_only_the_last_logits_are_computed_where_that_can_be_said(self) -> None:
        model = load_model(tiny_model("GPT2LMHeadModel"), tiny_tokenizer())
        packed = pack_model(model)
        sizes: list[int] = []
        packed.hf_model.lm_head.register_forward_hook(lambda m, x, y: sizes.append(y.shape[1]))
        make_generator(packed, 64, prompt_tokens=5, new_tokens=2)()
        assert sizes == [1, 1, 1]
        forward = packed.hf_model.forward
        packed.hf_model.forward = lambda input_ids, past_key_values=None, use_cache=None: forward(
            input_ids, past_key_values=past_key_values, use_cache=use_cache
        )
        make_generator(packed, 64, prompt_tokens=5, new_tokens=2)()
        assert sizes[3:] == [5, 1, 1]

    def test_what_does_not_fit_is_cut(self) -> None:
        generator = make_generator(pack_model(llama()), 64)
        assert len(generator.prompt) + generator.new_tokens + 1 <= 64
        assert generator.new_tokens == 32
        with pytest.raises(ConfigError, match="at least 3"):
            make_generator(pack_model(llama()), 2)


class TestMemory:
    def test_it_is_about_the_bytes_of_the_model(self) -> None:
        config = LlamaConfig(
            hidden_size=512,
            intermediate_size=2048,
            num_hidden_layers=8,
            num_attention_heads=8,
            vocab_size=272,
        )
        model = pack_model(load_model(LlamaForCausalLM(config), tiny_tokenizer()))
        assert model.resident_bytes > 60e6
        found = memory.measure_memory(model)
        assert model.resident_bytes < found.held_bytes < model.resident_bytes + 40e6
        assert found.held_bytes <= found.peak_bytes < model.resident_bytes + 150e6

    def test_the_peak_has_what_was_freed(self) -> None:
        memory.settle()
        before = memory.peak_so_far()
        torch.ones(50_000_000).sum()
        assert 190e6 < memory.peak_so_far() - before < 300e6

    def test_a_process_that_fails_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "_CHILD", "raise SystemError('no memory')")
        with pytest.raises(WorkbenchError, match="no memory"):
            memory.measure_memory(pack_model(llama()))

    @pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
    def test_nothing_is_left_where_who_measures_is_killed(self, tmp_path: Path) -> None:
        code = (
            "from types import SimpleNamespace\n"
            "import torch\n"
            "from workbench.runtime.measure import memory\n"
            'memory._CHILD = \'open(sys.argv[1] + ".up", "w").close()\\n\'\n'
            "memory._CHILD += 'import time; time.sleep(60)'\n"
            "memory.measure_memory(SimpleNamespace(hf_model=torch.nn.Linear(2, 2)))\n"
        )
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        process = subprocess.Popen([sys.executable, "-c", code], env=environment)
        try:
            until(lambda: list(tmp_path.glob("workbench-memory-*/*.up")))
        finally:
            process.kill()
            process.wait()
        until(lambda: not list(tmp_path.glob("workbench-memory-*")))


def until(is_true: Callable[[], object]) -> None:
    for _ in range(1200):
        if is_true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come true")
