"""`sgmft encoders`: the list costs little, and the check finds what is wrong with an encoder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from unittest.mock import Mock

import numpy as np
import pytest

from sgmft.errors import SgmftError
from sgmft.features.encoders.base import Encoded
from sgmft.features.encoders.hub import CHINESE_CLIP
from sgmft.features.encoders.registry import ENCODERS
from sgmft.jobs.encoders import _make_posts, check_encoder
from tiny_encoder import JointTinyEncoder, TinyEncoder

TITLES = ["shapes", "determinism", "batches", "order"]
TITLES += ["missing sides", "tokens", "speed", "fingerprint"]


class Wrong(TinyEncoder):
    """The tiny encoder with its pooled features changed, if it is right."""

    calls = 0

    def encode_texts(self, texts, tokens):
        found = super().encode_texts(texts, tokens)
        return Encoded(self.change(found.pooled, texts), found.tokens)

    def change(self, pooled, texts):
        return pooled


class Double(Wrong):
    def change(self, pooled, texts):
        return pooled.astype(np.float64)


class Narrow(Wrong):
    def change(self, pooled, texts):
        return pooled[:, 1:]


class Infinite(Wrong):
    def change(self, pooled, texts):
        return pooled / np.zeros((), np.float32)


class Constant(Wrong):
    def change(self, pooled, texts):
        return np.ones_like(pooled)


class Random(Wrong):
    def change(self, pooled, texts):
        return np.random.default_rng().normal(size=pooled.shape).astype(np.float32)


class ByBatch(Wrong):
    def change(self, pooled, texts):
        return pooled - pooled.sum(0) / 2


class ByPlace(Wrong):
    def change(self, pooled, texts):
        return pooled + np.arange(len(pooled), dtype=np.float32)[:, None]


class Broken(Wrong):
    def change(self, pooled, texts):
        raise RuntimeError("no such\nlayer")


class Unnamed(Wrong):
    def __init__(self, cleaning="light", **settings):
        super().__init__(cleaning)
        Unnamed.calls += 1
        object.__setattr__(self.info, "fingerprint", f"{Unnamed.calls:016x}")


class Joint(JointTinyEncoder):
    """Right, and so is what it makes of text and picture together."""


class JointNarrow(JointTinyEncoder):
    def encode_joint(self, texts, images):
        return super().encode_joint(texts, images)[:, 1:]


class JointByPlace(JointTinyEncoder):
    def encode_joint(self, texts, images):
        found = super().encode_joint(texts, images)
        return found + np.arange(len(found), dtype=np.float32)[:, None]


FAILS = {*TITLES[:4], "missing sides", "tokens", "speed"}  # every check that encodes
FAULTS = {
    Joint: set(),
    JointNarrow: {"shapes"},
    JointByPlace: {"batches", "order"},
    Wrong: set(),
    Double: {"shapes"},
    Narrow: FAILS,
    Infinite: FAILS,
    Constant: {"shapes"},
    Random: {"determinism", "batches", "order"},
    ByBatch: {"batches"},
    ByPlace: {"batches", "order"},
    Broken: FAILS,
    Unnamed: {"fingerprint"},
}


@pytest.fixture(scope="module", autouse=True)
def _drawn_once():
    """The made-up posts, which are always the same, are drawn once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sgmft.jobs.encoders._make_posts", cache(_make_posts))
        yield


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_each_fault_is_found(kind, monkeypatch):
    monkeypatch.setitem(ENCODERS, "wrong", kind)
    found = {title: (passed, text) for title, passed, text in check_encoder("wrong")}
    assert list(found) == TITLES
    assert {title for title, (passed, _) in found.items() if not passed} == FAULTS[kind]
    assert all(text and "\n" not in text for _, text in found.values())
    assert ("joint float32 (192,)" in found["shapes"][1]) == (kind in (Joint, JointByPlace))


@pytest.mark.slow
def test_encoders_of_other_libraries_are_checked_by_their_names(tmp_path):
    from library_checkpoints import save_checkpoint

    found = list(check_encoder(f"hf:{save_checkpoint('naflex', tmp_path / 'naflex')}"))
    assert [title for title, _, _ in found] == TITLES and all(passed for _, passed, _ in found)


def test_the_exit_code_is_1_where_a_check_fails(run, monkeypatch):
    monkeypatch.setitem(ENCODERS, "wrong", Wrong)
    done = run("encoders", "check", "wrong")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok"] * 8
    monkeypatch.setitem(ENCODERS, "wrong", Random)
    done = run("encoders", "check", "wrong")
    assert done.returncode == 1 and "FAILED  determinism" in done.stdout
    for words in (["check"], ["test", "compact"]):
        done = run("encoders", *words)
        assert done.returncode == 2 and "sgmft encoders check NAME" in done.stderr
    monkeypatch.setitem(ENCODERS, "wrong", Mock(side_effect=SgmftError("no weights here")))
    done = run("encoders", "check", "wrong")
    assert done.returncode == 2 and "sgmft: no weights here" in done.stderr
    done = run("encoders")
    assert done.returncode == 0 and re.search(r"wrong( +\?){3}  no weights here", done.stdout)


def test_the_list_loads_no_torch_and_has_encoders_of_plugins(counts):
    start = f"import sys; sys.argv = ['sgmft', '--plugin', {str(counts)!r}, 'encoders']\n"
    start += (
        "from sgmft.cli.main import main\ntry: main()\nexcept SystemExit as e: assert not e.code\n"
    )
    start += "assert not {'torch', 'transformers'} & sys.modules.keys()"
    done = subprocess.run(
        [sys.executable, "-c", start],
        **{"capture_output": True, "text": True, "check": False, "env": dict(os.environ)},
    )
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert rows["compact"] == ["1536", "2560", "-", "nothing"]
    assert rows["counts"][:3] == ["64", "3", "-"]
    assert {*CHINESE_CLIP} < rows.keys()
    assert rows["chinese-clip-huge"][:2] == ["1024", "1024"]
