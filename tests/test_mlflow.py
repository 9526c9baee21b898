"""MLflow's flavour: what is logged, loaded in a fresh process, and served by MLflow itself."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pandas as pd
import pytest

import sgmft.mlflow
from sgmft import SemanticLocator, read_posts, to_posts
from sgmft.errors import SgmftError
from sgmft.locator.onnx.export import export_model
from sgmft.locator.prediction import Predictor

mlflow = pytest.importorskip("mlflow")
REFUSED = "pictures must be in the data, since no path is followed"
LOADED = """
import json, mlflow, pandas, sys
model = mlflow.pyfunc.load_model(sys.argv[1])
frame = pandas.DataFrame(json.loads(sys.argv[2]), index=[*map(int, sys.argv[3].split())])
print(model.predict(frame).to_json(orient="split"))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Another process's, with MLflow's file store."""
    bin = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"MLFLOW_ALLOW_FILE_STORE": "true", "PATH": bin}
    own["MLFLOW_TRACKING_URI"] = (tmp_path_factory.mktemp("mlflow") / "store").as_uri()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        yield own["MLFLOW_TRACKING_URI"]
        mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def logged(environment, trained):
    mlflow.set_tracking_uri(environment)
    with mlflow.start_run():
        info = sgmft.mlflow.log_model(SemanticLocator.from_pretrained(trained), name="place")
    return info, Path(mlflow.artifacts.download_artifacts(info.model_uri))


@pytest.fixture(scope="module")
def rows(sample):
    """Posts as requests have them, two with pictures, and the predictions of two other ways."""
    posts = [post for post in read_posts(sample) if post.images][:2]
    rows = []
    for post, before in zip(posts, ("", "data:image/jpeg;base64,"), strict=True):
        data = base64.b64encode(post.images[0].read_bytes()).decode()
        rows.append({"text": post.text, "images": [before + data]})
    secret = {"text": "", "images": [str(posts[0].images[0])]}
    return [*rows, secret, {"text": posts[0].text}], [*posts, posts[0]]


def check(found, rows, locator: Predictor) -> None:
    """A third row names a file that is there; the fourth has a text alone."""
    expected = locator.predict_proba([*rows[1][:2], sgmft.Post(rows[1][2].text)])
    for row, probs in zip([*found[:2], found[3]], expected, strict=True):
        assert row["error"] is None and row["label"] == locator.labels[probs.argmax()]
        own = [row[f"p_{label}"] for label in locator.labels]
        assert own == pytest.approx(probs.tolist(), abs=1e-6)
    assert REFUSED in found[2]["error"] and found[2]["label"] is None


def test_the_saved_form_is_logged_with_what_it_takes_and_needs(logged):
    info, folder = logged
    columns = ("text", "image", "images", "time")
    assert {x.name: x.required for x in info.signature.inputs} == dict.fromkeys(columns, False)
    outputs = info.signature.outputs.input_names()
    assert outputs[:3] == ["label", "probability", "error"] and "p_Home" in outputs
    assert [*map(repr, info.signature.outputs.input_types()[:2])] == ["string", "double"]
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"config.json", "model.safetensors", "input_example.json"} <= names
    assert not any(name.endswith((".pkl", ".pickle", ".bin")) for name in names)
    needed = (folder / "requirements.txt").read_text()
    assert "sgmft[mlflow" in needed and f"=={sgmft.mlflow.version('sgmft')}" in needed


def test_a_fresh_process_loads_it_and_keeps_the_index(logged, rows, trained):
    given = logged[0].model_uri, json.dumps(rows[0]), "7 3 5 9"
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *given], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert table["index"] == [7, 3, 5, 9]
    locator = SemanticLocator.from_pretrained(logged[1] / "data" / "model")
    check([dict(zip(table["columns"], x, strict=True)) for x in table["data"]], rows, locator)


@pytest.mark.slow
def test_mlflow_serves_it_and_follows_no_path(logged, rows, trained, tmp_path):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    command = [Path(sys.executable).with_name("mlflow"), "models", "serve", "-m", logged[1]]
    command += ["--env-manager", "local", "-p", port]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(120):
            time.sleep(0.5)
            assert server.poll() is None, (tmp_path / "log").read_text()
            if "Uvicorn running" in (tmp_path / "log").read_text():
                break
        body = json.dumps({"dataframe_records": rows[0]}).encode()
        address = f"http://127.0.0.1:{port}/invocations"
        request = Request(address, body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as response:
            found = json.loads(response.read(), parse_constant=pytest.fail)["predictions"]
        check(found, rows, SemanticLocator.from_pretrained(trained))
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def test_a_request_without_posts_is_refused_and_image_is_a_column(logged, rows, trained):
    model = mlflow.pyfunc.load_model(logged[0].model_uri)
    with pytest.raises(SgmftError, match="need a column text, image or images"):
        model.predict(pd.DataFrame({"tweet": ["做完饭了"]}))
    one = pd.DataFrame([{"text": rows[0][0]["text"], "image": rows[0][0]["images"][0]}])
    found = model.predict(one)
    expected = model.predict(pd.DataFrame(rows[0][:1]))
    pd.testing.assert_frame_equal(found, expected)


def test_an_exported_model_is_saved_from_its_folder(trained, rows, tmp_path):
    locator = SemanticLocator.from_pretrained(trained)
    export_model(locator, tmp_path / "onnx")
    sgmft.mlflow.save_model(tmp_path / "onnx", tmp_path / "saved")
    frame = mlflow.pyfunc.load_model(str(tmp_path / "saved")).predict(pd.DataFrame(rows[0]))
    check(frame.to_dict("records"), rows, locator)


@pytest.mark.parametrize("given", ["{}", ["{}"], "{}|{}", '["{}"]', "file://{}", {"path": "{}"}])
def test_no_path_is_looked_at(given, sample, monkeypatch):
    for owner, name in ((os.path, "lexists"), (os.path, "isfile"), (os, "stat"), (os, "scandir")):
        monkeypatch.setattr(owner, name, lambda *x, **y: pytest.fail(f"{x} was looked at"))
    picture = f"{sample.parent}/images/00000_0.jpg"
    given = json.loads(json.dumps(given).replace("{}", picture))
    frame = pd.DataFrame([{"text": "x", "images": given}, {"text": None, "images": given}])
    one, other = to_posts(frame, root=False)
    assert REFUSED in one.warnings[0] and REFUSED in other.error
    assert not one.images and not other.images


def test_pictures_are_given_as_addresses_base64_or_bytes(trained, rows, tmp_path):
    model = sgmft.mlflow.LoggedModel(str(trained))
    address = rows[0][1]["images"][0]
    data = address.partition(",")[2]
    ways = [[address], address, data, base64.b64decode(data), [base64.b64decode(data)]]
    found = model.predict(pd.DataFrame({"images": ways}))
    assert found["error"].tolist() == [None] * len(ways)
    assert len({*found["probability"]}) == 1


def test_other_columns_are_read_by_a_model_that_learned_from_them(tiny, small_posts, tmp_path):
    posts = [sgmft.data.posts.replace(x, row={"likes": i % 3}) for i, x in enumerate(small_posts)]
    locator = tiny(preset="default", attributes=["likes"]).fit(posts)
    sgmft.mlflow.save_model(locator, tmp_path / "saved")
    model = mlflow.pyfunc.load_model(str(tmp_path / "saved"))
    frame = pd.DataFrame({"text": ["sofa"] * 2, "likes": [0, 2], "other": [1, 2]})
    expected = locator.predict_proba([sgmft.Post("sofa", row={"likes": i}) for i in (0, 2)])
    found = model.predict(frame)[[f"p_{x}" for x in locator.labels]].to_numpy(float)
    assert found == pytest.approx(expected, abs=1e-6) and abs(found[0] - found[1]).max() > 0.01


def test_without_mlflow_a_sentence_says_what_to_install(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(SgmftError, match=r"pip install 'sgmft\[mlflow\]'"):
        sgmft.mlflow.log_model(trained)


@pytest.mark.slow
def test_the_example_does_what_it_says(tmp_path):
    script = Path(__file__).parents[1] / "examples" / "from_python.py"
    command = [sys.executable, script, tmp_path / "tools"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    starts = ("a lost picture: ", "best of 4: ", "from MLflow, ", "Label Studio, /predict: ")
    for start in starts:
        assert sum(line.startswith(start) for line in lines) == 1, done.stdout
