"""Nothing that was sent is lost, guessed at or read a million times over: it is refused."""

import json

import pytest
from loopback import problem

from sgmft.errors import SgmftError
from sgmft.jobs.predict import ModelFolder
from sgmft.serving.engine import InferenceEngine
from sgmft.serving.problems import Limits
from sgmft.serving.server import serve_model

FORM = "multipart/form-data; boundary=x"
TEXT = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nat home\r\n'
END = b"--x--\r\n"


def part(name, value, more=""):
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def sent(server, body, kind=FORM):
    return server.post("/v1/predict", content=body, headers={"Content-Type": kind})


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (TEXT, "not-a-form", "cut off"),
        (TEXT + part("image", b"abc", '; filename="a.png"')[:-2], "not-a-form", "cut off"),
        (part("text", b"caf\xe9") + END, "not-a-form", "'text' is not in UTF-8"),
        (TEXT + TEXT + END, "invalid-request", "'text' twice"),
        (TEXT + part("images", b"aGVsbG8=") + END, "invalid-request", "is not a file"),
        (TEXT + part("other", b"", '; filename="a"') + END, "invalid-request", "'other'"),
        (
            part("posts", b'[{"text": "home"}]') + part("a", b"", '; filename="a"') + END,
            "invalid-request",
            "No post has the file 'a'",
        ),
    ],
)
def test_a_form_is_read_whole_or_refused(server, body, kind, words):
    answer = sent(server, body)
    assert problem(answer)[1] == kind
    assert words in answer.json()["detail"]


@pytest.mark.parametrize("charset", ["utf-16", "undefined", "punycode", "unicode_escape", "rot13"])
def test_forms_are_in_utf_8_whatever_they_say(server, charset):
    body = part("text", "在家 \\ud800".encode()) + part("id", "é \\ud800".encode()) + END
    answer, same = sent(server, body, f"{FORM}; charset={charset}"), sent(server, body)
    assert (answer.status_code, answer.json()) == (200, same.json())
    assert answer.json()["predictions"][0]["id"] == "é \\ud800"


@pytest.mark.parametrize("edge", ["", '""', "x" * 71, "a{b", "'\\xe4'"])
def test_a_boundary_is_as_it_should_be(server, edge):
    answer = sent(server, TEXT + END, f"multipart/form-data; boundary={edge}")
    assert problem(answer) == (400, "not-a-form")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"posts": [1] * 10**5}, "too-many-posts"),
        ({"images": [1] * 10**5}, "too-many-pictures"),
        ({"posts": [{"images": [1] * 10**5}]}, "too-many-pictures"),
        ({f"a{i}": 1 for i in range(10**5)}, "invalid-request"),
        ({"posts": [{f"a{i}": 1 for i in range(10**5)}]}, "invalid-request"),
        ({"images": [{f"a{i}": 1 for i in range(10**5)}]}, "invalid-request"),
        ({"text": [[]] * 10**6}, "invalid-request"),
    ],
)
def test_a_mistake_made_often_is_reported_once(server, body, kind):
    answer = sent(server, json.dumps(body).encode(), "application/json")
    assert problem(answer) == (422, kind)
    assert len(answer.content) < 1000


def test_a_form_is_bounded_as_json_is(server):
    for held, kind in ((b"[" + b"[]," * 10**6, "invalid-request"), (b"[", "not-json")):
        answer = sent(server, part("posts", held) + END)
        assert problem(answer)[1] == kind
        assert answer.json()["detail"].startswith("The field 'posts'")


def test_a_text_may_be_all_brackets(server):
    posts = [{"text": "home " + "[" * 19_000}] * 64
    assert server.post("/v1/predict", json={"posts": posts}).status_code == 200


def test_the_place_of_a_mistake_is_a_json_pointer(server):
    answer = server.post("/v1/predict", json={"posts": [{"a/b~c": 1}]})
    assert answer.json()["errors"][0]["at"] == "/posts/0/a~1b~0c"


def test_the_smallest_number_above_zero(server):
    answer = server.post("/v1/predict", json={"text": "home", "coverage": 5e-324})
    assert problem(answer) == (422, "not-possible")


def test_no_address_leads_where_its_host_says(server):
    answer = server.post("/v1/predict/", headers={"Host": "elsewhere.example"})
    assert answer.status_code == 404


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_are_numbers(value):
    with pytest.raises(SgmftError, match="The limit of seconds must be"):
        Limits(seconds=value)


@pytest.mark.parametrize("host", ["", "a..b", "x" * 70])
def test_a_host_that_is_none(host):
    with pytest.raises(SgmftError, match=r"host is empty|cannot be listened on"):
        serve_model(InferenceEngine(ModelFolder("nowhere"), Limits()), host, 0)
