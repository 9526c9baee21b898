"""`sgmft label` and a real server: transformers', with tiny models that are made here."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import pytest

from small_tables import read_rows, write_rows

pytest.importorskip("openai")
torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow  # the server takes its time to start
TEMPLATE = """\
{% for message in messages %}{{ message.role }}: {% if message.content is string %}\
{{ message.content }}{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}\
{% endif %}
{% endfor %}assistant: """
ROWS = [{"text": "躺在沙发上"}, {"text": "an exam"}, {"text": ""}, {"text": "boss " * 200}]
LABELS = "Home=在家|at home;School;Work"


def save_chat_model(folder, answer=None):
    """A network of bytes with random weights, or one that says nothing but this letter."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    names = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    size = len(names)
    width = {"hidden_size": 264, "intermediate_size": 16, "num_attention_heads": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    torch.manual_seed(0)
    network = LlamaForCausalLM(LlamaConfig(vocab_size=size, num_hidden_layers=1, **width, **ids))
    if answer is not None:  # after a space that letter, after the letter the end
        with torch.no_grad():
            for weights in network.model.layers.parameters():
                weights.zero_()
            network.model.embed_tokens.weight.copy_(torch.eye(size, width["hidden_size"]))
            network.lm_head.weight.zero_()
            network.lm_head.weight[names.index(answer), names.index("Ġ")] = 1
            network.lm_head.weight[1, names.index(answer)] = 1
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    models = {"random": None, "school": "B", "none": "D"}
    names = {name: str(save_chat_model(folder / name, x)) for name, x in models.items()}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()"]
    command += ["serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            for _ in range(600):
                with suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                assert process.poll() is None, (folder / "log").read_text("utf-8", "replace")
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1", names
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def label(server, run, tmp_path):
    url, names = server
    table, output = write_rows(ROWS, tmp_path / "posts.csv"), tmp_path / "out.csv"

    def label(model, *words):
        words = [*words, "--llm", url, "--model", names[model], "--labels", LABELS]
        words += ["--cache", tmp_path / "answers.sqlite", "--timeout", "300", "--workers", "2"]
        ended = run("label", table, "-o", output, *words)
        return ended, read_rows(output)

    return label


@pytest.mark.parametrize("language", ["en", "zh"])
def test_labels_by_a_model_that_knows_one_letter(label, language):
    ended, rows = label("school", "--lang", language, "--price", "1", "1")
    assert ended.returncode == 0, ended.stderr
    assert "3 requests" in ended.stderr and "0 answers from the cache" in ended.stderr
    assert [row["label"] for row in rows] == ["School", "School", None, "School"]
    assert [row["probability"] for row in rows] == [None] * 4  # this server gives none
    assert "nothing to go on" in rows[2]["error"]
    more = int(rows[3]["llm_tokens"]) - int(rows[1]["llm_tokens"])
    assert more == len(ROWS[3]["text"]) - len(ROWS[1]["text"])  # tokens are bytes
    assert float(rows[1]["llm_price"]) == pytest.approx(int(rows[1]["llm_tokens"]) / 1e6, rel=1e-3)
    again, same = label("school", "--lang", language, "--price", "1", "1")
    assert "0 requests" in again.stderr and same == rows


def test_votes_and_none_of_the_labels(label):
    ended, rows = label("school", "--votes", "3")
    assert "9 requests" in ended.stderr
    assert rows[0]["p_School"] == rows[0]["probability"] == "1.0000"
    _, rows = label("none")
    assert {row["label"] for row in rows} == {None}
    assert "found none of the labels" in rows[0]["abstained"]


def test_nonsense_is_an_error_of_each_row(label):
    ended, rows = label("random", "--max-tokens", "8")
    assert ended.returncode == 3  # no row is good
    assert "6 requests" in ended.stderr  # each of them twice
    for row in rows[:2]:
        assert row["label"] is None and "the answer was cut off, see --max-tokens" in row["error"]
        assert int(row["llm_tokens"]) > 400
