"""`requirements-onnx.txt` is enough: a fresh environment with it and without torch predicts."""

from __future__ import annotations

import json
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest

from sgmft import SemanticLocator, read_posts
from sgmft.locator.onnx.export import export_model

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_a_fresh_environment_without_torch_predicts_the_same(trained, sample, tmp_path):
    slim = tmp_path / "slim"
    venv.create(slim, with_pip=True)
    python = slim / "bin" / "python"

    def pip(*words: object) -> subprocess.CompletedProcess[str]:
        constraints = ["--constraint", ROOT / "constraints.txt"]
        command = [python, "-m", "pip", "install", "--quiet", "--no-compile", *constraints, *words]
        return subprocess.run([str(x) for x in command], capture_output=True, text=True)

    done = pip("setuptools", "wheel", "hatchling", "editables")
    if done.returncode:
        pytest.skip(f"packages cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    done = pip("--no-build-isolation", "-r", ROOT / "requirements-onnx.txt")
    assert done.returncode == 0, done.stderr
    done = pip("--no-build-isolation", "--no-deps", ROOT)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 1
    locator = SemanticLocator.from_pretrained(trained)
    export_model(locator, tmp_path / "onnx")
    out = tmp_path / "out.jsonl"
    command = [slim / "bin" / "sgmft", "predict", tmp_path / "onnx", sample, "-o", out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    locator.encoder_settings["dtype"] = "float32"
    wanted = locator.predict_proba(read_posts(sample))
    found = [[row[f"p_{label}"] for label in locator.labels] for row in rows]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
