"""Tasks of the harness in the terminal: computed in the worker process, with the user's word."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml

from tests import harnessed
from tests.harnessed import write_task
from tests.tiny import tiny_model, tiny_tokenizer
from workbench.study import Study

pytest.importorskip("lm_eval")

CODE = "def score(doc, results):\n    return {'length': float(len(results[0]))}\n"


def sweep(folder, *options):
    code = "from workbench.cli import main; main()"
    named = {"--model": "model", "--task": "own.yaml", "--methods": "rtn", "--bits": "4"}
    given = [word for pair in (named | {"--group-sizes": "8"}).items() for word in pair]
    return subprocess.run(
        [sys.executable, "-c", code, "sweep", *given, "--study", "study", *options],
        cwd=folder,
        env={**os.environ, "HF_DATASETS_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.slow
def test_the_worker_has_the_word_that_was_given(tmp_path):
    hf_model = tiny_model("LlamaForCausalLM")
    hf_model.config.max_position_embeddings = 128
    hf_model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    path = write_task(tmp_path, "own", harnessed.GENERATION, counts=(8, 4, 6))
    config = yaml.safe_load(path.read_text())
    del config["filter_list"]
    config["metric_list"] = [{"metric": "length", "aggregation": "mean", "higher_is_better": True}]
    path.write_text(yaml.safe_dump(config) + "process_results: !function scoring.score\n")
    (tmp_path / "scoring.py").write_text(CODE)
    refused = sweep(tmp_path)
    assert refused.returncode == 2
    assert "trust_remote_code=True" in refused.stderr
    assert "Traceback" not in refused.stderr
    done = sweep(tmp_path, "--trust-remote-code")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "length" in done.stdout
    table = Study.open(tmp_path / "study").table()
    assert table["state"].tolist() == ["done", "done"]
    assert table["length"].notna().all()
