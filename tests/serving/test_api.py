"""Normal use of the API: the façade's answers over HTTP, in every form, within the limits."""

import base64
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from loopback import problem
from PIL import Image

from image_files import encoded, plain
from sgmft import Abstention, Post, SemanticLocator, read_posts
from sgmft.data.posts import Attachment

DOCS = Path(__file__).parents[2] / "docs" / "serving.md"


@pytest.fixture(scope="module")
def posts(sample):
    return [post for post in read_posts(sample) if post.images][:6]


@pytest.fixture(scope="module")
def locator(trained):
    return SemanticLocator.from_pretrained(trained)


@pytest.fixture(scope="module")
def small(serving, trained):
    """A server with small limits, and a rule of its own."""
    limits = {"body": 0.05, "posts": 3, "pictures": 2, "pixels": 0.01, "requests": 8}
    options = [x for name, value in limits.items() for x in (f"--max-{name}", value)]
    return serving(trained, "--no-page", "--min-probability", 0.99, *options)


def in_base64(post):
    return [base64.b64encode(Path(x).read_bytes()).decode() for x in post.images]


def as_json(post):
    return {"id": post.id, "text": post.text, "images": in_base64(post)}


def png(width, height):
    return base64.b64encode(encoded(plain(size=(width, height)))).decode()


def probabilities(answer, labels):
    assert answer.status_code == 200, answer.text
    return [[x["probabilities"][y] for y in labels] for x in answer.json()["predictions"]]


def test_a_list_of_posts_gets_the_probabilities_of_the_locator(server, locator, posts):
    answer = server.post("/v1/predict", json={"posts": [as_json(post) for post in posts]})
    found = probabilities(answer, locator.labels)
    np.testing.assert_allclose(found, locator.predict_proba(posts), atol=1e-5)
    assert [x["id"] for x in answer.json()["predictions"]] == [post.id for post in posts]
    assert [x["label"] for x in answer.json()["predictions"]] == locator.predict(posts)


def test_one_post_as_json_a_data_address_or_a_form_gets_the_same(server, locator, posts):
    post = posts[0]
    wanted = locator.predict_proba([post])
    named = [{"name": "photo.jpg", "data": data} for data in in_base64(post)]
    address = [f"data:image/png;base64,{data}" for data in in_base64(post)]
    files = [("images", Path(x).read_bytes()) for x in post.images]
    for body in (
        *({"json": {"text": post.text, "images": x}} for x in (in_base64(post), named, address)),
        {"data": {"text": post.text}, "files": files},
    ):
        answer = server.post("/v1/predict", **body)
        np.testing.assert_allclose(probabilities(answer, locator.labels), wanted, atol=1e-5)


def test_a_form_with_several_posts_names_its_files(server, locator, posts):
    some = posts[:2]
    files = {f"f{i}": Path(post.images[0]).read_bytes() for i, post in enumerate(some)}
    body = [{"text": post.text, "images": [f"f{i}"]} for i, post in enumerate(some)]
    answer = server.post("/v1/predict", data={"posts": json.dumps(body)}, files=files)
    wanted = locator.predict_proba([Post(post.text, post.images[:1]) for post in some])
    np.testing.assert_allclose(probabilities(answer, locator.labels), wanted, atol=1e-5)
    missing = [{"text": "a", "images": ["f9"]}]
    answer = server.post("/v1/predict", data={"posts": json.dumps(missing)}, files=files)
    assert answer.status_code == 422 and "file" in answer.json()["detail"]


def test_many_requests_at_once_get_their_own_answers(server, locator, posts):
    def ask(post):
        return probabilities(server.post("/v1/predict", json=as_json(post)), locator.labels)[0]

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(ask, posts * 4))
    np.testing.assert_allclose(found, np.tile(locator.predict_proba(posts), (4, 1)), atol=1e-5)


def test_a_bad_post_is_reported_and_the_others_are_answered(server):
    bad = base64.b64encode(b"no picture").decode()
    body = [{"text": "on the sofa"}, {"text": "", "images": [bad]}, {}]
    first, second, third = server.post("/v1/predict", json={"posts": body}).json()["predictions"]
    assert first["label"] and first["error"] is None
    assert second["label"] is None and "picture 1 is not a picture" in second["error"]
    assert second["warnings"] == []
    assert third["probabilities"] is None and "nothing to go on" in third["error"]


def test_rules_of_a_request_are_those_of_the_locator(server, locator, posts):
    rules = {"coverage": 0.6, "min_probability": 0.9, "reject": 0.2}
    body = {"posts": [as_json(post) for post in posts], **rules}
    found = server.post("/v1/predict", json=body).json()["predictions"]
    wanted = list(locator.predictions(posts, Abstention(**rules)))
    assert [x["label"] for x in found] == [p.label for p in wanted]
    assert [tuple(x["set"]) for x in found] == [p.label_set for p in wanted]
    assert [x["abstained"] for x in found] == [p.abstained for p in wanted]
    np.testing.assert_allclose([x["typicality"] for x in found], [p.typicality for p in wanted])


def test_more_coverage_than_the_model_can_promise_is_a_problem(server):
    answer = server.post("/v1/predict", json={"text": "sofa", "coverage": 0.999})
    assert problem(answer) == (422, "not-possible")
    assert "0.999" in answer.json()["detail"]


def test_rules_of_the_server_hold_where_a_request_has_none(small, locator):
    post = Post("on the sofa at home")
    found = small.post("/v1/predict", json={"text": post.text}).json()["predictions"][0]
    assert found["label"] is None and "0.99" in found["abstained"]
    body = {"text": post.text, "min_probability": 0.01}
    found = small.post("/v1/predict", json=body).json()["predictions"][0]
    assert found["label"] == locator.predict([post])[0]


def test_an_explanation_is_that_of_the_locator(server, locator, posts):
    post = posts[0]
    answer = server.post("/v1/explain", json=as_json(post))
    assert answer.status_code == 200, answer.text
    shown = [Attachment(Path(x).read_bytes(), f"picture {i}") for i, x in enumerate(post.images, 1)]
    wanted = locator.explain(Post(post.text, shown, id=post.id)).to_dict()
    found = answer.json()["explanation"]
    assert found["post"] == wanted["post"]
    for part, other in zip(found["parts"], wanted["parts"], strict=True):
        assert part["contribution"] == pytest.approx(other["contribution"], abs=1e-5)
    assert answer.json()["prediction"]["label"] == wanted["predicted"]
    other = next(x for x in locator.labels if x != wanted["label"])
    answer = server.post("/v1/explain", json={"text": post.text, "label": other})
    assert answer.json()["explanation"]["label"] == other


def test_an_explanation_can_be_a_page(server, posts):
    answer = server.post("/v1/explain", json=as_json(posts[0]), headers={"accept": "text/html"})
    assert answer.headers["content-type"].startswith("text/html")
    assert "data:image/jpeg;base64," in answer.text and "<script" not in answer.text


def test_what_cannot_be_explained_says_why(server):
    for body, why in (({"text": ""}, "nothing to go on"), ({"text": "a", "label": "Moon"}, "Moon")):
        answer = server.post("/v1/explain", json=body)
        assert answer.status_code == 422 and why in answer.json()["detail"]


def test_the_model_describes_itself(server, locator):
    model = server.get("/v1/model").json()
    assert model["labels"] == locator.labels and model["encoder"] == "compact"
    assert (
        model["preset"] == "default" and model["metrics"] == locator.training.to_config()["metrics"]
    )
    assert model["versions"]["torch"] and model["limits"]["posts"] == 64 and "pid" not in model


def test_metrics_count_requests_posts_and_batches(server):
    server.post("/v1/predict", json={"posts": [{"text": "sofa"}, {}]})
    text = server.get("/metrics").text
    assert re.search(r'sgmft_requests_total\{route="/v1/predict",status="200"\} [1-9]', text)
    assert re.search(r'sgmft_posts_total\{outcome="error"\} [1-9]', text)
    assert re.search(r"sgmft_batch_posts_count [1-9]", text)
    assert re.search(r'sgmft_traits_total\{trait="parts",value="a text alone"\} [1-9]', text)
    assert re.search(r'sgmft_training_traits\{trait="label",value="Home"\} [1-9]', text)
    assert "sgmft_ready 1.0" in text and "sgmft_worker_restarts " in text


@pytest.mark.slow
def test_an_exported_model_gives_the_same_but_no_reasons(serving, sample, store, posts, tmp_path):
    from sgmft.locator.onnx.export import export_model

    locator = SemanticLocator(features=store, attributes=["hour", "followers"])
    export_model(locator.fit(read_posts(sample)), tmp_path / "onnx")
    exported = serving(tmp_path / "onnx", "--no-page")
    columns = [{"time": post.time, "followers": post.row["followers"]} for post in posts]
    own = [as_json(a) | {"attributes": b} for a, b in zip(posts, columns, strict=True)]
    answer = exported.post("/v1/predict", json={"posts": own})
    found = probabilities(answer, locator.labels)
    np.testing.assert_allclose(found, locator.predict_proba(posts), atol=2e-3)
    assert exported.get("/v1/model").json()["explains"] is False
    answer = exported.post("/v1/explain", json={"text": "sofa"})
    assert answer.status_code == 422 and "exported" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"text": "a" * 60_000}, 413, "body-too-large"),
        ({"text": "a" * 20_001}, 422, "text-too-long"),
        ({"posts": [{"text": "a"}] * 4}, 422, "too-many-posts"),
        ({"images": [png(9, 9)] * 3}, 422, "too-many-pictures"),
        ({"images": [png(200, 51)]}, 413, "too-many-pixels"),
        ({"text": 3}, 422, "invalid-request"),
        ({"texts": "a"}, 422, "invalid-request"),
        ({"posts": []}, 422, "invalid-request"),
        ({"text": "a", "coverage": 1}, 422, "invalid-request"),
        ({"images": ["/etc/passwd"]}, 422, "invalid-request"),
        ({"images": ["http://127.0.0.1/a.jpg"]}, 422, "invalid-request"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_over_a_limit_or_not_understood_has_its_own_problem(small, body, status, kind):
    answer = small.post("/v1/predict", json=body)
    assert problem(answer) == (status, kind)
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["status"] == status and found["detail"]
    assert small.get(found["type"]).json()["title"] == found["title"]


def test_exactly_the_limit_is_allowed(small):
    assert small.post("/v1/predict", json={"posts": [{"text": "a"}] * 3}).status_code == 200
    images = [png(200, 50)] * 2
    assert small.post("/v1/predict", json={"images": images}).status_code == 200


@pytest.mark.parametrize(
    ("body", "kind", "refused"),
    [
        (b"{", "application/json", (400, "not-json")),
        (b"", "application/json", (400, "not-json")),
        (b"text=a", "application/x-www-form-urlencoded", (415, "unknown-media-type")),
        (b"a", "multipart/form-data; boundary=b", (400, "not-a-form")),
    ],
)
def test_other_bodies_have_their_own_problems(small, body, kind, refused):
    answer = small.post("/v1/predict", content=body, headers={"content-type": kind})
    assert problem(answer) == refused


def test_a_limit_that_makes_no_sense_is_refused(run, trained):
    for option, value in (("--max-posts", 0), ("--max-pixels", 1000), ("--max-pictures", 99)):
        done = run("serve", trained, option, value)
        assert done.returncode == 2 and "limit" in done.stderr and "Traceback" not in done.stderr


def test_the_examples_of_the_docs_run(server, sample, tmp_path):
    photo = next(post.images[0] for post in read_posts(sample) if post.images)
    Image.open(photo).convert("RGB").save(tmp_path / "photo.jpg")
    text = DOCS.read_text("utf-8")

    def run(*program):
        words = [x.replace("http://127.0.0.1:8000", server.address) for x in program]
        words[-1] = words[-1].replace("0.9", "0.6")
        utf8 = {**os.environ, "PYTHONUTF8": "1"}
        return subprocess.run(words, cwd=tmp_path, env=utf8, capture_output=True, text=True)

    (curl,) = re.findall(r"^curl .*$", text, re.MULTILINE)
    done = run("bash", "-c", curl)
    assert json.loads(done.stdout)["predictions"][0]["probabilities"], done.stderr
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = run(sys.executable, "-c", program)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["17", "18"], done.stderr
