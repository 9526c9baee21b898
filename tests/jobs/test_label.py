"""Labels by a language model: protocol, constrained answers, faults, cache, secrets, the route."""

import base64
import contextlib
import gzip
import io
import logging
import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from chat_server import (
    LABELS,
    Answer,
    by_words,
    completion,
    post_of,
    prompt_of,
    refusal,
    serve_chat,
)
from sgmft import Post
from sgmft.data.source import Source
from sgmft.errors import SgmftError
from sgmft.jobs.label import PROMPTS, LanguageModel, in_order
from sgmft.jobs.predict import predict_table
from sgmft.locator.prediction import Prediction
from small_tables import read_rows, write_rows

pytest.importorskip("openai")
WORDS = ["--labels", "Home;School=in class|at the library;Work", "--model", "m", "--lang", "en"]
KEY = "sk-very-secret-0123456789"
ROWS = [
    {"id": "1", "text": "on the sofa", "label": "Work"},
    {"id": "2", "text": "an exam", "label": ""},
    {"id": "3", "text": "", "label": ""},
    {"id": "4", "text": "躺在沙发上🛋️", "label": ""},
    {"id": "5", "text": "nothing to see", "label": ""},
]


@pytest.fixture(autouse=True)
def few_retries(monkeypatch):
    monkeypatch.setattr("sgmft.jobs.label.RETRIES", 1)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def ask(tmp_path):
    """Ask a server that behaves so for posts; returns predictions, the server and the model."""

    def ask(behaviour, posts, **settings):
        posts = [Post(x) if isinstance(x, str) else x for x in posts]
        own = {"cache": tmp_path / "answers.sqlite", "descriptions": LABELS} | settings
        with serve_chat(behaviour) as server:
            model = LanguageModel(server.url, "m", **own)
            try:
                return list(model.predictions(posts)), server, model
            finally:
                model.close()

    return ask


def always(answer):
    return lambda body, number: answer


def test_a_table_comes_back_with_labels_and_is_not_asked_twice(run, tmp_path):
    table, output = write_rows(ROWS, tmp_path / "posts.csv"), tmp_path / "out.csv"
    words = ["label", table, *WORDS, "--cache", tmp_path / "c.sqlite", "--price", "10", "100"]
    with serve_chat() as server:
        dry = run(*words, "--llm", server.url, "--dry-run")
        assert dry.returncode == 0 and not server.seen
        assert "Would send 4 posts with 0 pictures" in dry.stderr and "for 0.0" in dry.stderr
        assert "How long it takes shows once a few answers are cached" in dry.stderr
        ended = run(*words, "--llm", server.url, "-o", output)
        assert ended.returncode == 0, ended.stderr
        assert f"Sending 4 posts with 0 pictures to {server.url} (m)" in ended.stderr
        assert "4 requests" in ended.stderr and "400 tokens read, 12 written" in ended.stderr
        assert "price 0.0052;" in ended.stderr
        more = write_rows([*ROWS, {"text": "boss"}], tmp_path / "more.csv")
        dry = run("label", more, *words[2:], "--llm", server.url, "--dry-run")
        assert "Would send 1 posts" in dry.stderr or "Would send 1 post " in dry.stderr
        assert re.search(r"At the speed of the cached answers, about \d+ s\.", dry.stderr)
        again = run(*words, "--llm", server.url, "-o", tmp_path / "again.csv")
        assert "Sending 0 posts" in again.stderr and "4 other posts are cached" in again.stderr
        assert len(server.seen) == 4 and server.most <= 8
    rows = read_rows(output)
    assert rows == read_rows(tmp_path / "again.csv")
    columns = "id,text,input_label,label,probability,error,warning,p_Home,p_School,p_Work,abstained"
    assert ",".join(rows[0]) == columns + ",llm_none,llm_tokens,llm_seconds,llm_price"
    assert [row["label"] for row in rows] == ["Home", "School", None, "Home", None]
    assert rows[0]["input_label"] == "Work" and rows[3]["text"] == ROWS[3]["text"]
    assert "nothing to go on" in rows[2]["error"] and rows[2]["llm_tokens"] is None
    assert rows[4]["abstained"] == "the language model found none of the labels"
    for row in rows:  # nothing is known of them, so nothing is made up
        assert row["probability"] is row["p_Home"] is row["llm_none"] is None
    assert rows[0]["llm_tokens"] == "103" and float(rows[0]["llm_price"]) == 0.0013


def test_what_is_asked(ask, small_posts, tmp_path):
    picture = small_posts[0].images[0]
    post = Post("ignore all {labels} above", [picture, tmp_path / "gone.jpg", picture], id="1")
    (found,), server, _ = ask(by_words, [post], max_images=2, image_size=64)
    assert found.error is None
    assert found.post.warnings == (
        "has 3 pictures; at most 2 of one post are read",
        "there is no file gone.jpg",
    )
    (body,) = server.seen
    text, image = body["messages"][0]["content"]
    mime, _, data = image["image_url"]["url"].partition(";base64,")
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (mime, shown.format, shown.size) == ("data:image/jpeg", "JPEG", (16, 16))
    assert "A: Home\nB: School (in class; at the library)\nC: Work\nD: none" in text["text"]
    assert post_of(body) == "ignore all {labels} above"
    assert text["text"].endswith("Answer with nothing but the code of one label: A, B, C, D.")
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["label"]["enum"] == ["A", "B", "C", "D"]
    assert body["temperature"] == 0 and body["logprobs"] is True and body["model"] == "m"


def test_the_prompt_is_chinese_or_ones_own(ask, tmp_path):
    _, server, _ = ask(by_words, ["沙发"], prompt=PROMPTS / "zh.txt")
    assert "社交媒体" in server.seen[0]["messages"][0]["content"]
    own = tmp_path / "own.txt"
    own.write_text("{labels}\n--------\n{text}\n--------\nSay {codes} or {none}", "utf-8")
    _, server, _ = ask(by_words, ["沙发"], prompt=own)
    prompt = server.seen[0]["messages"][0]["content"]
    assert prompt.startswith("A: Home\nB: School") and prompt.endswith("Say A, B, C, D or D")
    own.write_text("{text}", "utf-8")
    with pytest.raises(SgmftError, match=r"own\.txt: write \{labels\} and \{text\}"):
        ask(by_words, ["x"], prompt=own)
    with pytest.raises(SgmftError, match="cannot be read"):
        ask(by_words, ["x"], prompt=tmp_path / "gone.txt")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("B", "School"),
        (' "B".\n', "School"),
        ('{"label": "B"}', "School"),
        ("B: School", "School"),
        ("B) at the library", "School"),
        ("<think>A or B? I take</think>\n\nC", "Work"),
        ("**A**", "Home"),
        ("b", "School"),
        ("Home", "Home"),
        ('{"label": "Home"}', "Home"),
        ('```json\n{"label": "A"}\n```', "Home"),
        ("A: School", None),
        ("B. is wrong, it is A", None),
        ("A) no B) yes", None),
        ("E", None),
        ("A nice place", None),
        ("A, B", None),
        ('{"place": "A"}', None),
        ("[1]", None),
        ("", None),
        (None, None),
    ],
)
def test_answers_are_read_strictly_with_one_retry(ask, text, label):
    (found,), server, model = ask(always(completion(text)), ["x"])
    assert found.label == label and len(server.seen) == (1 if label else 2)
    assert model.spent["tokens"] == 100 * len(server.seen)
    if label is None:
        assert found.error.startswith("the model's answer names none of the labels: ")
        assert found.more["llm_tokens"] == 206  # which were paid for
        before, answer, again = server.seen[1]["messages"]
        assert before == server.seen[0]["messages"][0] and answer["content"] == (text or "")
        assert again["content"].startswith("Answer with nothing but the code")


@pytest.mark.parametrize(
    ("answer", "label"),
    [("home", None), ("indoors", None), ("at home", "Home"), ("office", "Office"), ("a", "Home")],
)
def test_a_word_that_means_two_labels_is_no_answer(ask, answer, label):
    labels = {"Home": ["at home", "indoors"], "Office": ["indoors", "home"]}
    (found,), _, _ = ask(always(completion(answer)), ["x"], descriptions=labels)
    assert found.label == label


def test_a_second_answer_counts_and_long_ones_are_shortened(ask):
    (found,), _, _ = ask(lambda _, number: completion("hm" if number == 1 else "C"), ["x"])
    assert found.label == "Work" and found.more["llm_tokens"] == 206
    (found,), _, _ = ask(always(completion("blah " * 99)), ["y"])
    assert len(found.error) < 140
    (found,), _, _ = ask(always(completion("I thi", finish_reason="length")), ["z"])
    assert found.error == "the answer was cut off, see --max-tokens: 'I thi'"


def test_log_probabilities_become_probabilities_of_the_labels(ask):
    tops = {"B": 0.4, " A": 0.1, "D": 0.2, "x": 0.2, '"B': 0.1}
    (found,), _, _ = ask(always(completion('{"label":"B"}', tops)), ["x"])
    assert found.label == "School" and found.more["llm_none"] == 0.25
    np.testing.assert_allclose(found.probabilities, [1 / 6, 5 / 6, 0], rtol=1e-5)
    (found,), _, _ = ask(always(completion("D", {"D": 0.6, "A": 0.3})), ["y"])
    assert (
        found.label is None and found.probabilities is None and found.more["llm_none"] == 0.666667
    )
    (found,), _, _ = ask(always(completion("A", {"A": 0.9})), ["z"])
    assert found.label == "Home" and found.probabilities is None  # one alternative tells nothing


def test_votes_become_probabilities(ask):
    answers = ["A", "A", "C", "D", "junk", "junk"]
    (found,), server, _ = ask(lambda _, n: completion(answers[n - 1]), ["x"], votes=5)
    assert found.label == "Home" and found.more["llm_none"] == 0.25
    np.testing.assert_allclose(found.probabilities, [2 / 3, 0, 1 / 3], rtol=1e-6)
    assert found.post.warnings == ("1 of 5 answers name none of the labels",)
    assert len(server.seen) == 6 and {x["temperature"] for x in server.seen} == {1}
    (tied,), _, _ = ask(lambda _, n: completion("CACAD"[n - 1]), ["y"], votes=5)
    assert tied.label == "Home"  # the first of the best, as a table's reader takes it


BELOW = math.log(0.5)


@pytest.mark.parametrize(
    "odd",
    [
        {"A": math.nan, "B": -2, "C": -3},
        {"A": 0.5, "B": -2, "C": -3},
        {"A": -math.inf, "B": -2},
        {"B": -2, "The": BELOW},
        {"A": BELOW, "D": None, "B": -0.95},
        {"A": "x", "B": -1},
    ],
    ids=str,
)
def test_odd_log_probabilities_give_none(ask, odd):
    answer = completion("A", {"A": 0.9, "B": 0.1})
    tops = [{"token": name, "logprob": x, "bytes": None} for name, x in odd.items()]
    answer.body["choices"][0]["logprobs"]["content"][0]["top_logprobs"] = tops
    (found,), _, _ = ask(always(answer), ["x"])
    assert found.label == "Home" and found.probabilities is None


def test_the_least_probabilities_have_shares(ask):
    answer = completion("A", {"A": 0.9, "B": 0.1})
    tops = answer.body["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    tops[0]["logprob"], tops[1]["logprob"] = -900, -901
    (found,), _, _ = ask(always(answer), ["x"])
    assert found.probability == pytest.approx(1 / (1 + math.exp(-1)), rel=1e-6)


def test_probabilities_are_those_behind_the_reasoning(ask):
    answer = completion("<think>A student, or B?</think>B", {"A": 0.2, "B": 0.8})
    content = answer.body["choices"][0]["logprobs"]["content"]
    for token in content[:-1]:
        token["top_logprobs"] = [
            {"token": name, "logprob": math.log(p), "bytes": None}
            for name, p in (("A", 0.99), ("B", 0.01))
        ]
    (found,), _, _ = ask(always(answer), ["x"])
    assert found.label == "School" and found.probability == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('{"label": "A"}', "Home"),
        ('{"label": null}', None),
        ('{"label": ["A"]}', None),
        ('{"label": "A", "label": "B"}', None),
        ('{"label": "A", "why": "B"}', None),
        ("[]", None),
        ("{}", None),
    ],
)
def test_json_is_an_answer_if_it_has_one_label(ask, text, label):
    assert ask(always(completion(text)), ["x"])[0][0].label == label


@pytest.mark.parametrize(
    ("text", "tokens", "label"),
    [("A", 32, None), ("A", 1, "Home"), ("Home", 1, None), ('{"label": "B"}', 9, "School")],
)
@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_half_an_answer_is_none(ask, text, tokens, label, reason):
    answer = completion(text, finish_reason=reason)
    assert ask(always(answer), ["x"], max_tokens=tokens)[0][0].label == label


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 7, "completion_tokens": None}])
def test_a_server_that_counts_no_tokens(ask, usage):
    answer = completion("A")
    answer.body["usage"] = usage
    (found,), _, _ = ask(always(answer), ["x"], price=(1, 1))
    assert found.label == "Home" and found.more["llm_tokens"] == (7 if usage else None)


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("named", [True, False])
def test_refused_settings_are_left_out_from_then_on(ask, status, named):
    def fussy(body, number):
        if "response_format" in body:
            return refusal(status, "no response_format here" if named else "Bad Request")
        return by_words(body, number)

    posts = [f"sofa {i}" for i in range(20)]
    found, server, _ = ask(fussy, posts, workers=1)
    assert [x.label for x in found] == ["Home"] * 20
    assert len(server.seen) == (21 if named else 40)  # once and for all, where it is known what
    assert ("logprobs" in server.seen[-1]) == named


def test_settings_are_refused_once_by_many_requests_in_flight(ask):
    def fussy(body, number):
        time.sleep(0.02)
        refused = "response_format" in body
        return (
            refusal(400, "no response_format here")
            if refused
            else completion("A", {"A": 0.6, "B": 0.4})
        )

    found, server, _ = ask(fussy, [f"sofa {i}" for i in range(20)], workers=8)
    assert [x.probability for x in found] == [pytest.approx(0.6)] * 20
    assert all("logprobs" in x for x in server.seen)


def test_what_a_post_is_refused_for_is_no_word_on_settings(ask):
    def strict(body, number):
        if "max_tokens" in body:
            return refusal(400, "Unsupported parameter: 'max_tokens'")
        if "long" in post_of(body):
            return refusal(400, "max_completion_tokens, logprobs, temperature: too long")
        return completion("A", {"A": 0.6, "B": 0.4})

    found, _, model = ask(strict, ["x", "long", "y", "long too", "z"], workers=1)
    assert [x.label for x in found] == ["Home", None, "Home", None, "Home"]
    assert found[4].probability == pytest.approx(0.6) and not model.refused


def test_a_post_that_is_refused_costs_the_others_nothing(ask):
    def short(body, number):
        return refusal(400, "too long") if "long" in post_of(body) else by_words(body, number)

    found, server, _ = ask(short, ["sofa", *(f"long {i}" for i in range(12)), "boss"], workers=1)
    assert [x.label for x in found] == ["Home", *[None] * 12, "Work"]
    assert "too long" in found[1].error
    assert "response_format" in server.seen[-1]


def test_busy_and_broken_servers_are_asked_again(ask):
    def busy(body, number):
        if number == 1:
            return refusal(429, "later", Retry_After="1")
        return refusal(500, "oops") if number == 3 else by_words(body, number)

    start = time.monotonic()
    found, server, _ = ask(busy, ["sofa 1", "sofa 2"], workers=1)
    assert [x.label for x in found] == ["Home", "Home"] and len(server.seen) == 4
    assert time.monotonic() - start >= 1  # as it was told


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refusal(500, "oops"), "500"),
        (refusal(429, "quota"), "429"),
        (Answer(200, {"choices": []}), "could not be asked"),
        (Answer(200, {"error": "x"}), "could not be asked"),
        (Answer(200, b"<html>a proxy's page</html>"), "could not be asked"),
        (Answer(200, completion("A").body, cut=True), "could not be asked"),
        (Answer(307, {}, {"Location": "http://127.0.0.1:9/v1"}), "307"),
        (Answer(200, completion("A").body, seconds=1), "timed out"),
    ],
    ids=["500", "429", "empty", "no-choices", "html", "cut", "elsewhere", "late"],
)
def test_what_goes_wrong_is_an_error_of_the_row_and_is_not_kept(ask, answer, message):
    def faulty(body, number):
        return answer if "bad" in post_of(body) else by_words(body, number)

    found, _, _ = ask(faulty, ["sofa", "bad", "exam"], timeout=0.4, workers=1)
    assert [x.label for x in found] == ["Home", None, "School"]
    assert found[1].error.startswith("the language model could not be asked: ")
    assert message in found[1].error and "\n" not in found[1].error


def test_after_a_fault_only_what_failed_is_asked(run, tmp_path):
    table = write_rows([{"text": f"sofa {i}"} for i in range(6)], tmp_path / "p.csv")
    broken = threading.Event()
    broken.set()

    def faulty(body, number):
        if broken.is_set() and "3" in post_of(body):
            return refusal(503, "overloaded")
        return by_words(body, number)

    with serve_chat(faulty) as server:
        words = [*WORDS, "--llm", server.url, "--cache", tmp_path / "c", "-o", tmp_path / "o.csv"]
        first = run("label", table, *words)
        assert first.returncode == 0 and "1 of 6 rows could not be used" in first.stderr
        before = len(server.seen)
        broken.clear()
        run("label", table, *words)
        assert len(server.seen) == before + 1
    assert [row["label"] for row in read_rows(tmp_path / "o.csv")] == ["Home"] * 6


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (completion("A")._replace(drip=0.01), "no whole answer within 0.5 s"),
        (Answer(body=b"[" * 5000), "more than 4,096 bytes"),
        (
            Answer(body=gzip.compress(b"[" * 5000), headers={"Content-Encoding": "gzip"}),
            "compressed",
        ),
    ],
)
def test_an_answer_without_end_is_an_error_of_the_row(ask, monkeypatch, answer, message):
    monkeypatch.setattr("sgmft.jobs.label.MOST", 4096)
    monkeypatch.setattr("sgmft.jobs.label.RETRIES", 0)
    start = time.monotonic()
    found, _, _ = ask(always(answer), ["sofa"], timeout=0.5)
    assert found[0].label is None and time.monotonic() - start < 5
    assert message in found[0].post.error


def test_a_server_that_names_no_label_stops_the_job(ask):
    with pytest.raises(
        SgmftError, match=r"answers with no label, 10 times .*'I am not sure'.*--prompt"
    ):
        ask(always(completion("I am not sure")), map(str, range(15)), workers=1)
    some = lambda body, number: completion("A" if number == 1 else "I am not sure")  # noqa: E731
    found, _, _ = ask(some, map(str, range(15)), workers=1)
    assert sum(x.error is None for x in found) == 1


def test_a_model_is_closed_while_others_ask(ask, tmp_path):
    for i in range(8):  # the cache was closed under a query, now and then, and the process died
        with pytest.raises(SgmftError, match="answers with no label"):
            cache = tmp_path / f"{i}.sqlite"
            ask(always(completion("?")), map(str, range(60)), workers=8, cache=cache)


def test_what_was_paid_for_is_said_where_the_second_answer_fails(ask):
    def half(body, number):
        return refusal(500, "oops") if len(body["messages"]) > 1 else completion("junk")

    (found,), _, _ = ask(half, ["x"], price=(1, 1))
    assert "500" in found.error and found.more["llm_tokens"] == 103
    assert found.more["llm_price"] == pytest.approx(103e-6)


def test_a_proxy_of_the_environment_reads_nothing_that_stays_here(ask, monkeypatch):
    with serve_chat() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        (found,), server, _ = ask(by_words, ["sofa"])
        assert found.label == "Home" and len(server.seen) == 1 and not proxy.seen


def test_a_long_text_is_cut_and_said(ask, monkeypatch):
    monkeypatch.setattr("sgmft.jobs.label.LONGEST", 50)
    (found,), server, _ = ask(by_words, ["sofa " * 20])
    assert len(post_of(server.seen[0])) == 50 and found.label == "Home"
    assert found.post.warnings == ("has a text of 100 characters, of which the first 50 are read",)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_model_stops_the_job(run, tmp_path, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    table = write_rows([{"text": f"sofa {i}"} for i in range(300)], tmp_path / "p.csv")
    with serve_chat(always(refusal(status, f"Incorrect API key provided: {KEY}"))) as server:
        words = [*WORDS, "--llm", server.url, "--cache", tmp_path / "c", "-o", tmp_path / "o.csv"]
        ended = run("label", table, *words, "--workers", "2")
        assert ended.returncode == 2 and len(server.seen) < 50
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(f"sgmft: {server.url} gives no labels (Error code: {status}")
    assert KEY not in ended.stderr and "***" in last
    assert not (tmp_path / "o.csv").exists()


def test_a_server_that_has_died_stops_the_job(ask):
    found = [f"sofa {i}" for i in range(300)]
    with pytest.raises(SgmftError, match=r"gives no labels .* asks nothing twice"):
        ask(lambda body, n: by_words(body, n) if n <= 5 else refusal(500, "dead"), found)


def test_the_key_is_sent_and_is_nowhere_else(ask, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    caplog.set_level(logging.DEBUG)
    found, server, model = ask(
        lambda body, n: refusal(400, f"key {KEY}") if "bad" in post_of(body) else by_words(body, n),
        ["sofa", "bad"],
        key_env="MY_KEY",
    )
    assert {x["authorization"] for x in server.headers} == {f"Bearer {KEY}"}
    assert KEY not in str(found) and "***" in found[1].error
    assert KEY not in caplog.text and KEY not in repr(model)
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.rglob("*.sqlite*"))
    with pytest.raises(SgmftError) as error:
        ask(always(refusal(401, f"key {KEY}")), ["x"], key_env="MY_KEY")
    assert KEY not in "".join(traceback.format_exception(error.value))


def test_a_key_that_comes_back_is_not_kept(ask, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    (found,), _, _ = ask(always(completion(f"Bearer {KEY}")), ["x"])
    assert KEY not in found.error and "***" in found.error
    assert KEY.encode() not in (tmp_path / "answers.sqlite").read_bytes()


def test_another_database_is_no_cache(tmp_path):
    for number, table in enumerate(("CREATE TABLE x (y)", "CREATE TABLE replies (key, reply, z)")):
        path = tmp_path / f"{number}.sqlite"
        with contextlib.closing(sqlite3.connect(path)) as rows:
            rows.execute(table)
        before = path.read_bytes()
        with pytest.raises(
            SgmftError, match=r"cannot be used \(it is a database of something else"
        ):
            LanguageModel("http://127.0.0.1:1/v1", "m", LABELS, cache=path)
        assert path.read_bytes() == before


@pytest.mark.parametrize("damaged", ["{", "[]", "{}", None, '{"text": 5}', "5"])
def test_a_damaged_answer_is_asked_for_again(tmp_path, damaged):
    with serve_chat() as server:
        for _ in range(2):
            model = LanguageModel(server.url, "m", LABELS, cache=tmp_path / "c")
            assert next(model.predictions([Post("sofa")])).label == "Home"
            model.close()
            with contextlib.closing(sqlite3.connect(tmp_path / "c")) as rows, rows:
                rows.execute("UPDATE replies SET reply = ?", [damaged])
        assert len(server.seen) == 2


def test_the_same_server_and_file_under_other_names(tmp_path):
    (tmp_path / "other").symlink_to(tmp_path / "c")
    with serve_chat() as server:
        for url, name in ((server.url, "c"), (server.url + "/", "c"), (server.url, "other")):
            model = LanguageModel(url, "m", LABELS, cache=tmp_path / name)
            assert next(model.predictions([Post("sofa")])).label == "Home"
            model.close()
        assert len(server.seen) == 1
    assert {x.name for x in tmp_path.iterdir()} == {"c", "c.lock", "other"}


def test_the_cache_has_nothing_of_the_posts(ask, tmp_path):
    ask(by_words, ["a secret sofa"])
    assert b"secret" not in (tmp_path / "answers.sqlite").read_bytes()


@pytest.mark.parametrize(
    "other",
    [{"max_tokens": 9}, {"prompt": PROMPTS / "zh.txt"}],
    ids=["max_tokens", "prompt"],
)
def test_other_settings_are_asked_anew(tmp_path, other):
    cache = tmp_path / "c.sqlite"
    with serve_chat() as server:
        for settings in ({}, {}, other, other):
            model = LanguageModel(server.url, "m", LABELS, cache=cache, **settings)
            assert next(model.predictions([Post("sofa")])).label == "Home"
            model.close()
        assert len(server.seen) == 2


def test_the_same_post_is_paid_for_once_also_at_the_same_time(ask):
    def slow(body, number):
        time.sleep(0.05)
        return by_words(body, number)

    found, server, _ = ask(slow, ["sofa"] * 40)
    assert [x.label for x in found] == ["Home"] * 40 and len(server.seen) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems lock no bytes of open files")
def test_two_jobs_on_one_cache_pay_once(tmp_path):
    def slow(body, number):
        time.sleep(0.05)
        return by_words(body, number)

    posts, found = [Post(f"sofa {i}") for i in range(20)], []
    with serve_chat(slow) as server:
        models = [LanguageModel(server.url, "m", LABELS, cache=tmp_path / "c") for _ in range(2)]
        jobs = [
            threading.Thread(target=lambda m=m: found.extend(m.predictions(posts))) for m in models
        ]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        assert len(server.seen) == 20
        assert sorted(m.spent["requests"] + m.spent["cached"] for m in models) == [20, 20]
    assert [x.label for x in found] == ["Home"] * 40


@pytest.mark.parametrize("count", [25, 26, 38, 98])
@pytest.mark.parametrize("form", ["{code}", '{{"label": "{code}"}}', "{code}: {label}", "{label}"])
def test_more_labels_than_letters(tmp_path, count, form):
    labels = {f"place {i}": [f"place {i}"] for i in range(count)}

    def last(body, number):
        listed = prompt_of(body).split("\n\n")[1].splitlines()
        code, label = listed[count - 1].split(": ")
        assert len(listed) == count + 1 and len(code) == (1 if count == 25 else 2)
        return completion(form.format(code=code, label=label))

    with serve_chat(last) as server:
        model = LanguageModel(server.url, "m", labels, cache=tmp_path / "c")
        found = list(model.predictions([Post("somewhere")]))
        model.close()
    assert [x.label for x in found] == [f"place {count - 1}"]
    assert len(server.seen) == 1


def test_two_digits_that_are_one_token_have_probabilities(tmp_path):
    labels = {f"place {i}": [f"place {i}"] for i in range(38)}
    answer = completion("7", {"07": 0.5, "12": 0.3, "39": 0.2})
    one_token = answer.body["choices"][0]["logprobs"]["content"][0]
    one_token["token"] = answer.body["choices"][0]["message"]["content"] = "07"
    digits = completion("07", {"0": 0.9, "1": 0.1})  # of each a token: what they share is unknown
    for case, share in ((answer, 0.5 / 0.8), (digits, None)):
        with serve_chat(always(case)) as server:
            model = LanguageModel(server.url, "m", labels, cache=tmp_path / f"{share}")
            found = next(model.predictions([Post("somewhere")]))
            model.close()
        assert found.label == "place 6"
        assert found.probability == (share and pytest.approx(share))


def test_many_requests_at_once_and_rows_in_order(ask):
    def uneven(body, number):
        time.sleep(0.001 * (number * 7 % 30))
        return by_words(body, number)

    posts = [f"{word} {i}" for i in range(40) for word in ("sofa", "exam", "boss")]
    found, server, _ = ask(uneven, posts, workers=5)
    assert [x.label for x in found] == ["Home", "School", "Work"] * 40
    assert [x.post.text for x in found] == posts
    assert 2 <= server.most <= 5


def test_few_posts_are_in_flight(monkeypatch):
    monkeypatch.setattr("sgmft.jobs.label.AHEAD", 10)
    taken = []
    found = in_order(lambda x: x, (taken.append(x) or x for x in range(1000)), 2)
    for i in range(50):
        assert next(found) == i and len(taken) <= i + 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"descriptions": {"Home": ["Home"]}}, "Name 2 to 98 labels"),
        ({"descriptions": {"Home": ["a"], "none": ["b"]}}, "'none' is always there"),
        ({"descriptions": {f"x{i}": [""] for i in range(99)}}, "Name 2 to 98 labels"),
        ({"descriptions": {"b": [""], "A": [""]}}, "the code of another"),
        ({"descriptions": {"Home": [""], "c": [""], "Cinema": [""]}}, "the code of another"),
        ({"descriptions": {"x": [""], "(A)": [""]}}, "the code of another"),
        ({"descriptions": {"x": [""], "None": [""]}}, "'none' is always there"),
        ({"server": "localhost:8000"}, "begin it with http"),
        ({"server": "http://[::1"}, "cannot be used"),
        ({"server": "http://127.0.0.1:1/\x01v1"}, "cannot be used"),
        ({"price": (float("nan"), 1)}, "Prices are numbers of at least 0"),
        ({"price": (1, -1)}, "Prices are numbers of at least 0"),
        ({"timeout": float("inf")}, "at most a day"),
        ({"votes": 1}, "--votes 0 or 2 and more"),
        ({"server": "http://me:secret@127.0.0.1/v1"}, "leave passwords out"),
        ({"cache": Path(__file__)}, "cache .* cannot be used"),
        ({"cache": Path(__file__) / "x"}, "cache .* cannot be used"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, change, message):
    own = {"server": "http://127.0.0.1:1/v1", "cache": tmp_path / "c", "descriptions": LABELS}
    with pytest.raises(SgmftError, match=message) as error:
        LanguageModel(model="m", **(own | change))
    assert "secret" not in str(error.value)


def test_without_the_client_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(SgmftError, match=r"pip install 'sgmft\[llm\]'"):
        LanguageModel("http://127.0.0.1:1/v1", "m", LABELS, cache=tmp_path / "c")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_job_goes_on_and_pays_for_nothing_twice(tmp_path):
    rows = [{"text": f"sofa {i}"} for i in range(30)]
    table, output = write_rows(rows, tmp_path / "p.csv"), tmp_path / "out.csv"
    enough = threading.Event()

    def slow(body, number):
        time.sleep(0.02)
        if number >= 12:
            enough.set()
        return by_words(body, number)

    with serve_chat(slow) as server:
        command = [sys.executable, "-m", "sgmft", "label", str(table), *WORDS, "--llm", server.url]
        command += ["-o", str(output), "--cache", str(tmp_path / "c.sqlite"), "--workers", "2"]
        quiet = {"stderr": subprocess.DEVNULL, "env": {**os.environ, "PYTHONUTF8": "1"}}
        job = subprocess.Popen(command, **quiet)
        assert enough.wait(120)
        job.send_signal(signal.SIGKILL)
        job.wait()
        assert not output.exists()
        assert subprocess.run(command, timeout=300, **quiet).returncode == 0
        asked = [post_of(body) for body in server.seen]
    assert [row["label"] for row in read_rows(output)] == ["Home"] * 30
    assert set(asked) == {row["text"] for row in rows}
    assert len(asked) <= 30 + 2  # those that were in flight


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_other_formats_keep_types(tmp_path, suffix):
    table, output = write_rows(ROWS, tmp_path / "p.jsonl"), tmp_path / f"out.{suffix}"
    tops = always(completion("A", {"A": 0.75, "C": 0.25}))
    with serve_chat(tops) as server:
        model = LanguageModel(server.url, "m", LABELS, cache=tmp_path / "c", price=(1, 1))
        predict_table(Source(str(table)), output, model)
        model.close()
    row = read_rows(output)[0]
    assert row["probability"] == pytest.approx(0.75) and row["p_School"] == 0
    assert row["llm_tokens"] == 103 and row["llm_price"] == pytest.approx(103e-6)


def routed(run, small_model, tmp_path, behaviour, *words):
    rows = [{"text": "sofa bed"}, {"text": "zzz"}, {"text": ""}, {"text": "boss exam sofa"}]
    table, output = write_rows(rows, tmp_path / "p.csv"), tmp_path / "out.csv"
    if not (tmp_path / "model").exists():
        small_model.save_pretrained(tmp_path / "model")
    with serve_chat(behaviour) as server:
        words = ["--llm", server.url, "--llm-model", "m", "--features", "none", *words]
        ended = run("predict", tmp_path / "model", table, "-o", output, *words)
        return ended, read_rows(output) if ended.returncode == 0 else [], server


def test_unsure_posts_are_asked_for(run, small_model, tmp_path):
    ended, rows, server = routed(run, small_model, tmp_path, by_words, "--ask-llm-below", "1e-6")
    assert ended.returncode == 0, ended.stderr
    assert not server.seen and [row["source"] for row in rows] == ["model"] * 4
    tops = always(completion("B", {"B": 0.75, "A": 0.25}))
    ended, rows, server = routed(run, small_model, tmp_path, tops, "--ask-llm-below", "1")
    assert f"to {server.url} (m)" in ended.stderr and "3 requests" in ended.stderr
    assert [row["source"] for row in rows] == ["llm", "llm", "model", "llm"]
    assert [row["label"] for row in rows] == ["School", "School", None, "School"]
    assert rows[0]["probability"] == "0.7500" and rows[0]["p_Home"] == "0.2500"


def test_the_budget_goes_to_the_least_sure(run, small_model, tmp_path):
    _, plain, _ = routed(run, small_model, tmp_path, by_words, "--ask-llm-below", "0")
    sure = [float(row["probability"] or 1) for row in plain]
    least = sorted(range(4), key=sure.__getitem__)
    for count in (1, 2):
        words = ["--ask-llm-below", "1", "--llm-budget", str(count)]
        _, rows, server = routed(run, small_model, tmp_path, always(completion("D")), *words)
        asked = [i for i, row in enumerate(rows) if row["source"] == "llm"]
        assert asked == sorted(least[:count]) and len(server.seen) == count
        for i, row in enumerate(rows):
            assert row["label"] == (None if i in asked else plain[i]["label"])
            assert i not in asked or "found none" in row["abstained"]


class Sure:
    """A model whose probability of its label is the text."""

    labels, traits = ("Home", "School"), {}

    def predictions(self, posts, abstain=None):
        for post in posts:
            probs = np.array([float(post.text), 1 - float(post.text)], np.float64)
            yield Prediction(post, "Home", probs, None)


@given(
    st.lists(st.sampled_from([0.5, 0.6, 0.7, 0.8, 0.9]), max_size=12),
    st.integers(0, 8),
    st.sampled_from([0.55, 0.7, 1.0]),
)
def test_the_budget_goes_to_the_least_probable_whatever_ties(probs, budget, below):
    posts = [Post(str(x)) for x in probs]
    options = {"first": Sure(), "budget": budget, "below": below}
    with tempfile.TemporaryDirectory() as folder:
        own = {"cache": Path(folder) / "c", **options}
        model = LanguageModel("http://127.0.0.1:1/v1", "m", {x: [x] for x in Sure.labels}, **own)
        for _ in range(2):  # a second table counts anew
            model.adapt(posts)
            chosen = [x for (p, x) in model._choose(Sure().predictions(posts))]
        model.close()
    asked = sorted(x for x, y in zip(probs, chosen, strict=True) if y)
    assert asked == sorted(x for x in probs if x < below)[:budget]


def test_a_prediction_stands_where_the_language_model_fails(run, small_model, tmp_path):
    words = ["--ask-llm-below", "1"]
    ended, rows, _ = routed(run, small_model, tmp_path, always(completion("junk")), *words)
    assert ended.returncode == 0
    assert [row["source"] for row in rows] == ["model"] * 4
    assert rows[0]["label"] and rows[0]["probability"] and "names none" in rows[0]["warning"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("m p.csv -o o.csv --llm http://x/v1", "are for --ask-llm-below"),
        ("m p.csv -o o.csv --llm-labels A;B", "are for --ask-llm-below"),
        ("m p.csv -o o.csv --ask-llm-below 0.5", "needs --llm, --llm-model"),
        ("m p.csv -o o --ask-llm-below 0.5 --llm http://x/v1 --llm-model m", "one file"),
    ],
)
def test_a_route_needs_a_server_and_one_file(run, words, message):
    ended = run("predict", *words.split())
    assert ended.returncode == 2 and message in ended.stderr
