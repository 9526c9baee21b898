"""Label Studio's machine-learning backend, as Label Studio 1.23 calls it."""

import base64
import copy
import json
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, strategies as st
from loopback import problem, until

from conftest import SGMFT
from image_files import encoded, plain
from sgmft import Post, SemanticLocator, read_posts
from sgmft.data.tables.label_studio import write_tasks
from sgmft.errors import SgmftError
from sgmft.serving.label_studio import LabelStudio

CHOICES = "<View><Choices name='place' toName='t'>{}</Choices></View>"
BOMB = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'>{}]><View>&z;</View>".format(
    "".join(f"<!ENTITY {y} '{f'&{x};' * 10}'>" for x, y in zip("abcdefgh", "bcdefghz", strict=True))
)


@pytest.fixture(scope="module")
def posts(sample):
    return [post for post in read_posts(sample) if post.images and post.text][:6]


@pytest.fixture(scope="module")
def locator(trained):
    return SemanticLocator.from_pretrained(trained)


@pytest.fixture(scope="module")
def project(sample, posts, locator, tmp_path_factory):
    """The tasks that `sgmft suggest` writes, with ids as they are given in Label Studio."""
    path = tmp_path_factory.mktemp("project") / "tasks.json"
    config = write_tasks(path, posts, locator.labels, sample.parent)
    tasks = json.loads(path.read_text("utf-8"))
    return config.read_text("utf-8"), [{"id": i, **x} for i, x in enumerate(tasks, 1)]


@pytest.fixture(scope="module")
def export(sample):
    """The file, beside the pictures, to which annotations are added."""
    return sample.parent / "export.json"


@pytest.fixture(scope="module")
def training(trained, tmp_path_factory):
    """A folder with the model of `studio`, which the second training replaces by another."""
    folder = tmp_path_factory.mktemp("training")
    shutil.copytree(trained, folder / "model")
    return folder


@pytest.fixture(scope="module")
def studio(serving, training, export):
    """A server for a project, which takes three posts at a time; the last test trains its model."""
    gate, other, model = (training / name for name in ("gate", "other", "model"))
    words = f"echo >> {gate}; test $(wc -l < {gate}) -gt 1 && cp {other}/* {model}/"
    options = "--max-posts", 3, "--annotations", export, "--retrain", words
    return serving(model, "--no-page", *options)


@pytest.fixture
def events(studio, export):
    """Sends an event and returns what is kept then; in the end nothing is."""

    def send(action, **what):
        answer = studio.post("/webhook", json={"action": action, "project": {"id": 1}} | what)
        assert answer.json() == {"status": "kept"}, answer.text
        return {x.id: x.label for x in read_posts(export)} if export.stat().st_size > 2 else {}

    yield send
    export.unlink(missing_ok=True)


def asked(server, config, tasks):
    answer = server.post("/predict", json={"label_config": config, "tasks": tasks, "project": "1"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert len(found["results"]) == len(found["warnings"]) == len(tasks)
    return found["results"], found["warnings"]


def chosen(results):
    return [x[0]["result"][0]["value"]["choices"] if x else None for x in results]


def annotation(number, *choices, cancelled=False):
    result = [{"from_name": "label", "to_name": "text", "type": "choices"}]
    result[0]["value"] = {"choices": list(choices)}
    return {"id": number, "result": result, "was_cancelled": cancelled, "lead_time": 2.5}


def test_tasks_get_the_labels_of_the_locator(studio, project, locator, posts):
    config, tasks = project
    results, warnings = asked(studio, config, tasks)
    version = studio.post("/setup", json={"schema": config, "project": "1.17"}).json()
    assert chosen(results) == [[x] for x in locator.predict(posts)]
    scores = [x[0]["score"] for x in results]
    assert scores == pytest.approx(locator.predict_proba(posts).max(1).tolist(), abs=1e-5)
    assert {x[0]["model_version"] for x in results} == {version["model_version"]}
    places = [(x[0]["result"][0]["from_name"], x[0]["result"][0]["to_name"]) for x in results]
    assert set(places) == {("label", "text")} and not any(warnings)


def test_another_configuration_is_filled_by_its_names(studio, project, locator, posts):
    first, *others = locator.predict(posts)
    choice = f"<Choice value='x' alias='{first}'/><Choice value='Gym'/>"
    config = "<!-- ours --><View><Choices name='mood'><Choice value='sad'/></Choices>"
    results, warnings = asked(studio, config + CHOICES.format(choice) + "</View>", project[1])
    assert chosen(results) == [[x] if x == first else None for x in (first, *others)]
    assert results[0][0]["result"][0]["from_name"] == "place"
    assert all(bool(x) is not bool(y) for x, y in zip(results, warnings, strict=True))
    assert all("is no choice" in x for why in warnings for x in why)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (CHOICES.format("<Choice value='Gym'/><Choice value='操场'/>"), "Gym, 操场"),
        (CHOICES.format(""), "none"),
        ("<View/>", "none"),
        ("<View><Choices", "The labelling configuration"),
        (BOMB, "The labelling configuration"),
        (BOMB.replace("DOC", "DOC<!DOCTYPE"), "The labelling configuration"),
        ("<View>" * 300_000, "The labelling configuration"),
        ("<View>" * 80_000 + "</View>" * 80_000, "none"),
        ("<Choices>" * 50_000 + "</Choices>" * 50_000, "Choices in Choices"),
        ("<?xml version='1.0' encoding='x'?><View\0/>", "The labelling configuration"),
        (None, "The labelling configuration"),
        ({"a": ["b"]}, "The labelling configuration"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_a_configuration_that_cannot_be_filled_is_refused_in_a_sentence(studio, config, words):
    for path, key in (("/setup", "schema"), ("/predict", "label_config")):
        answer = studio.post(path, json={key: config, "tasks": []})
        assert problem(answer) == (422, "invalid-request")
        assert words in answer.json()["detail"] and answer.json()["detail"].endswith(".")


def test_bad_tasks_cost_the_others_nothing(studio, project):
    config, tasks = project
    bad = [None, 3, [], {}, {"data": "text"}, {"data": {}}, {"data": {"text": ["a", {"b": [1]}]}}]
    bad += [{"data": {"text": "x" * 30_000}}, {"data": {"text": None, "image": {"a": 1}}}]
    mixed = [x for pair in zip(bad, tasks * 2, strict=False) for x in pair]
    results, warnings = asked(studio, config, mixed)
    good = asked(studio, config, [mixed[i] for i in range(1, len(mixed), 2)])[0]
    assert chosen(results)[1::2] == chosen(good) and None not in chosen(good)
    assert all(warnings[i] for i, x in enumerate(results) if not x)
    assert results[0] == results[2] == results[10] == []


@pytest.mark.parametrize("body", [b"[]", b"3", b"{", b"", b"[" * 10**6, b'{"a":' * 9000])
@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook"])
def test_what_is_no_object_is_refused(studio, path, body):
    answer = studio.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422) and answer.json()["detail"]
    answer = studio.post(path, content=b"{}", headers={"Content-Type": "text/plain"})
    assert problem(answer) == (415, "unknown-media-type")  # what other sites' forms can send
    answer = studio.post(path, content=b" " * (33 << 20))
    assert problem(answer) == (413, "body-too-large")


SECRETS = ["../secret.png", "/etc/hostname", "%2e%2e/secret.png", "link.png", "images/../../a.png"]
SECRETS += ["http://127.0.0.1:{port}/a.png", "//127.0.0.1:{port}/a.png", "a\0.png", "images", "."]
PREFIXES = [
    "",
    "/data/local-files/?d=",
    "/data/upload/1/",
    "http://x/data/local-files/?d=",
    "file:",
]


def test_pictures_outside_the_folder_are_missing(studio, project, sample, export):
    """Whatever a task says, no file but the folder's is read, and no address is fetched."""
    import socket

    secret = sample.parent.parent / "secret.png"
    plain(size=(40, 40)).save(secret)
    (sample.parent / "link.png").unlink(missing_ok=True)
    (sample.parent / "link.png").symlink_to(secret)
    text = "三亚的海边，飞机刚刚落地"
    alone = asked(studio, project[0], [{"data": {"text": text}}])[0]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        names = [x.replace("{port}", str(listener.getsockname()[1])) for x in SECRETS]
        images = [prefix + name for prefix in PREFIXES for name in (*names, str(secret))]
        tasks = [{"data": {"text": text, "image": x}} for x in images]
        results, warnings = asked(studio, project[0], tasks)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert all(warnings)
    for (found,) in results:  # one by one or together, which rounds in other ways
        assert found | {"score": 0} == alone[0][0] | {"score": 0}
        assert found["score"] == pytest.approx(alone[0][0]["score"], abs=1e-6)
    (sample.parent / "link.png").unlink()


@given(image=st.recursive(st.text() | st.none() | st.integers(), st.lists, max_leaves=4))
def test_whatever_stands_for_a_picture_the_text_gets_its_label(studio, project, image):
    tasks = [{"data": {"text": "三亚的海边", "image": x}} for x in (image, None)]
    results, _ = asked(studio, project[0], tasks)
    assert results[0] == results[1] != []


def test_pictures_in_the_request_need_no_folder_and_have_limits(server, project, locator):
    picture = encoded(plain())
    address = "data:image/png;base64," + base64.b64encode(picture).decode()
    large = base64.b64encode(encoded(plain(0, (10_000, 10_000), "1"))).decode()
    given = [address, "/data/local-files/?d=images/a.png", f"data:image/png;base64,{large}"]
    tasks = [{"data": {"text": "在家", "image": x}} for x in given]
    results, warnings = asked(server, project[0], tasks)
    wanted = locator.predict_proba([Post("在家", [write(picture)]), Post("在家")]).max(1)
    assert [x[0]["score"] for x in results] == pytest.approx([*wanted, wanted[1]], abs=1e-5)
    assert not warnings[0] and "no file" in warnings[1][0] and "pixels" in warnings[2][0]


def write(picture):
    from sgmft.data.posts import Attachment

    return Attachment(picture)


def test_annotations_are_kept_as_an_export(events, project, export, locator, posts):
    """Changed ones in place of what they were, votes of several, without those deleted."""
    home, work = locator.labels[:2]
    first, second = project[1][:2]
    a, b = posts[0].id, posts[1].id
    assert events("ANNOTATION_CREATED", task=first, annotation=annotation(1, home)) == {a: home}
    before = export.read_bytes()
    events("ANNOTATION_CREATED", task=first, annotation=annotation(1, home))
    assert export.read_bytes() == before
    assert events("ANNOTATION_UPDATED", task=first, annotation=annotation(1, work)) == {a: work}
    found = events("ANNOTATION_CREATED", task=second, annotation=annotation(2, home))
    assert found == {a: work, b: home}
    both = [annotation(3, home), annotation(4, home, cancelled=True)]
    found = events("ANNOTATIONS_CREATED", task=[first, second], annotation=both)
    assert found == {a: None, b: home}
    assert events("ANNOTATIONS_DELETED", annotations=[{"id": 1}, {"id": 99}])[a] == home
    kept = read_posts(export)
    assert [x.images for x in kept] == [x.images for x in posts[:2]]
    assert "lead_time" not in export.read_text()


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 4), st.booleans(), st.sampled_from("ab")),
        max_size=12,
    )
)
def test_any_history_leaves_the_last_state_of_each_annotation(studio, export, history):
    export.unlink(missing_ok=True)
    last: dict[int, tuple[int, str]] = {}
    for task, number, deleted, label in history:
        number += 10 * task  # an annotation stays with its task
        event = {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": number}]}
        last.pop(number, None)
        if not deleted:
            last[number] = (task, label)
            event = {"action": "ANNOTATION_UPDATED", "annotation": annotation(number, label)}
            event["task"] = {"id": task, "data": {"text": f"post {task}", "id": f"p{task}"}}
        assert studio.post("/webhook", json=event).status_code == 200
    tasks = json.loads(export.read_text()) if history else []
    export.unlink(missing_ok=True)
    kept = {
        x["id"]: (task["id"], x["result"][0]["value"]["choices"][0])
        for task in tasks
        for x in task["annotations"]
    }
    assert kept == last
    assert len({x["id"] for x in tasks}) == len(tasks)


def test_an_export_goes_on(events, project, export, locator):
    """What Label Studio exported stays, and is read before each event, not once."""
    task = copy.deepcopy(project[1][0])
    task |= {"annotations": [annotation(7, locator.labels[0])], "meta": {"x": 1}}
    export.write_text(json.dumps([task], indent=2))
    events("ANNOTATION_CREATED", task=project[1][1], annotation=annotation(8, locator.labels[1]))
    assert json.loads(export.read_text())[0] == task


BAD_EVENTS = [
    {"annotation": {"id": 1}},
    {"annotation": 3, "task": 4},
    {"annotation": [annotation(1)], "task": []},
    {"annotation": {"id": []}, "task": {"id": 1, "data": {}}},
    {"annotation": annotation(1), "task": {"id": {}, "data": {}}},
    {"annotation": annotation(1), "task": {"id": 1, "data": "text"}},
    {"annotations": 3},
    {"annotations": [3]},
    {"annotations": None},
]


@pytest.mark.parametrize("event", BAD_EVENTS, ids=str)
def test_a_bad_event_changes_nothing(studio, export, event):
    export.write_text(json.dumps([{"id": 5, "data": {"text": "a"}, "annotations": []}]))
    before = export.read_bytes()
    answer = studio.post("/webhook", json={"action": "ANNOTATION_CREATED", **event})
    assert problem(answer) == (422, "invalid-request")
    assert export.read_bytes() == before
    export.unlink()


def test_without_options_nothing_is_kept_and_that_is_said(server, project):
    for action in ("ANNOTATION_CREATED", "START_TRAINING"):
        event = {"action": action, "task": project[1][0], "annotation": annotation(1, "a")}
        answer = server.post("/webhook", json=event)
        assert answer.status_code == 200 and "nothing to keep" in answer.json()["status"]


def task(number, text, *annotations):
    return {"id": number, "data": {"text": text}, "annotations": [*annotations]}


NO_EXPORTS = {
    "text": "text",
    "numbers": "[3]",
    "object": '{"a": 1}',
    "without ids": '[{"text": "no id"}]',
    "deep": "[" * 9999,
    "JSON-MIN": '[{"id": 1, "text": "a", "label": "Home"}, {"id": 1, "text": "a"}]',
    "ids of a table": '[{"id": 1, "text": "a", "label": "Home"}]',
    "two projects": json.dumps(
        [task(1, "a", annotation(1, "x")), task(1, "b", annotation(2, "y"))]
    ),
    "annotations of two": json.dumps([task(1, "a", annotation(1)), task(2, "b", annotation(1))]),
    "annotation without id": json.dumps([task(1, "a", {"result": []})]),
}


@pytest.mark.parametrize("content", NO_EXPORTS.values(), ids=NO_EXPORTS)
def test_a_file_that_is_no_export_is_not_written_over(studio, export, tmp_path, content):
    """Neither at the start nor by an event, which is told that the server's file is to blame."""
    path = tmp_path / "labels.json"
    for file in (path, export):
        file.write_text(content)
    with pytest.raises(SgmftError, match=r"labels.json is no JSON export of .* Label Studio"):
        LabelStudio(None, str(path))
    event = {"task": task(7, "c"), "annotation": annotation(7, "a")}
    answer = studio.post("/webhook", json=event)
    assert problem(answer) == (500, "not-kept") and str(export) in answer.json()["detail"]
    assert path.read_text() == export.read_text() == content
    until(lambda: any(str(export) in line for line in studio.complaints()))
    export.unlink()


def test_a_bad_export_ends_the_start_in_a_sentence(trained, tmp_path):
    command = [SGMFT, "serve", trained, "--port", "0", "--annotations", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2 and f"{tmp_path} is no JSON export" in ended.stderr


def test_the_start_writes_nothing(tmp_path):
    path = tmp_path / "export.json"
    LabelStudio(None, str(path))
    assert not [*tmp_path.iterdir()]
    text = json.dumps([task(1, "a", annotation(1, "x")), {"id": 2, "data": {}}], indent=3)
    path.write_text(text, "utf-8-sig")  # as some editors save it
    LabelStudio(None, str(path))
    assert path.read_text("utf-8-sig") == text


def test_an_export_behind_a_link_keeps_its_place_mode_and_odd_characters(events, export):
    target = export.with_name("target.json")
    target.write_text('[{"id": 3, "data": {"text": "\\ud800 x"}, "annotations": null}]')
    target.chmod(0o600)
    export.symlink_to(target.name)
    events("ANNOTATION_CREATED", task=task(4, "在家"), annotation=annotation(1, "a"))
    assert export.is_symlink() and target.stat().st_mode & 0o777 == 0o600
    first, second = json.loads(target.read_text("utf-8"))
    assert first == task(3, "\ud800 x") and second["data"] == {"text": "在家"}
    assert "在家" in target.read_text("utf-8")
    target.unlink()


def test_one_event_with_an_annotation_twice_leaves_one(events, export):
    both = {
        "task": [task(1, "a"), task(1, "a")],
        "annotation": [annotation(1, "x", cancelled=True)],
    }
    both["annotation"].append(annotation(1, "y"))
    events("ANNOTATIONS_CREATED", **both)
    ((kept,),) = [x["annotations"] for x in json.loads(export.read_text())]
    assert kept["result"][0]["value"] == {"choices": ["y"]}


@pytest.mark.parametrize("action", ["TASKS_CREATED", "TASKS_DELETED", "PROJECT_UPDATED"])
def test_an_event_without_annotations_changes_nothing(studio, export, action):
    answer = studio.post("/webhook", json={"action": action, "tasks": [{"id": 1}]})
    assert answer.status_code == 200 and answer.json()["status"].startswith("nothing to keep")
    assert not export.exists()


@pytest.mark.slow
def test_others_are_answered_while_a_large_export_is_written(studio, export):
    """And events that come together lose nothing."""
    export.write_text(
        json.dumps([task(i, "long " * 40, annotation(i, "x")) for i in range(20_000)])
    )
    took = []

    def send(i):
        event = {"task": task(10**6 + i, "new"), "annotation": annotation(10**6 + i, "y")}
        start = time.monotonic()
        assert studio.post("/webhook", json=event).status_code == 200
        took.append(time.monotonic() - start)

    with ThreadPoolExecutor() as pool:
        sent, waits = [pool.submit(send, i) for i in range(4)], []
        while not all(x.done() for x in sent):
            start = time.monotonic()
            assert studio.get("/health").status_code == 200
            waits.append(time.monotonic() - start)
    for x in sent:
        x.result()
    kept = {x["id"] for x in json.loads(export.read_text())}
    export.unlink()
    assert kept >= {10**6 + i for i in range(4)} and len(kept) == 20_004
    assert sorted(waits)[len(waits) // 2] < max(took) / 10, (waits, took)


def test_training_is_started_and_the_new_model_answers(studio, training, sample, store):
    """Once at a time; a training that fails leaves the model as it is."""
    server, gate, complaints = studio, training / "gate", studio.complaints()
    renamed = [Post(x.text, x.images, label=f"new {x.label}") for x in read_posts(sample)]
    SemanticLocator(features=store).fit(renamed).save_pretrained(training / "other")
    config = "".join(f"<Choice value='{x.label}'/><Choice value='{x.label[4:]}'/>" for x in renamed)
    ask = {"label_config": CHOICES.format(config), "tasks": [{"data": {"text": "在家里"}}]}
    first = server.post("/predict", json=ask).json()["results"][0][0]

    def train():
        started = server.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 1}})
        assert started.json() == {"status": "training"}

    train()
    until(gate.exists)
    assert server.post("/predict", json=ask).json()["results"][0][0] == first
    until(lambda: train() or len(gate.read_text()) > 1)  # pressed too early, it does nothing
    until(lambda: server.get("/v1/model").json()["labels"][0].startswith("new "))
    (new,) = server.post("/predict", json=ask).json()["results"][0]
    assert new["result"][0]["value"]["choices"][0].startswith("new ")
    assert new["model_version"] != first["model_version"]
    found = server.post("/v1/predict", json={"text": "在家里"}).json()["predictions"][0]
    assert set(found["probabilities"]) == {x.label for x in renamed}
    assert server.counted("sgmft_traits") > 0 and server.complaints() == complaints
