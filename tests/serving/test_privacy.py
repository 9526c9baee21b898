"""What a post says stays between the client and the model; who has no key gets nothing."""

import base64
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from loopback import Case, answer, problem, request, until

from image_files import encoded, plain

SECRET = "xyzzyplugh"  # stands for whatever nobody but the client may know
KEY = "schlüssel-鍵"
FILE = encoded(plain())
WEB_SOCKET = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {SECRET}")


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def mark(tmp_path_factory):
    """The file that is there once anything was unpickled."""
    return tmp_path_factory.mktemp("trap") / "sprung"


@pytest.fixture(scope="module")
def keyed(serving, trained, mark, tmp_path_factory):
    """A server that asks for a key, of a model beside which somebody put pickles."""
    model = shutil.copytree(trained, tmp_path_factory.mktemp("keyed") / "model")
    for name in ("pytorch_model.bin", "model.pt", "held_out.pkl", "config.pkl"):
        (model / name).write_bytes(pickle.dumps(Trap(mark)))
    return serving(model, "--no-page", "--api-key", KEY)


def logged(server):
    """The server's log, all that was asked for until now included."""
    before = len(server.log)
    server.get("/v1/model", headers={b"x-api-key": KEY.encode()})
    until(lambda: any("/v1/model" in line for line in server.log[before:]), 20)
    return list(server.log)


def requests():
    """The secret in every place that a request has, in good requests and bad ones."""
    image = base64.b64encode(FILE).decode()
    part = f'--x\r\nContent-Disposition: form-data; name="{{}}"{{}}\r\n\r\n{SECRET}\r\n'
    end, form = "--x--\r\n", "multipart/form-data; boundary=x"
    bodies = {
        "text": f'{{"text": "{SECRET}", "id": "{SECRET}"}}',
        "file name": f'{{"images": [{{"data": "{image}", "name": "{SECRET}.png"}}]}}',
        "damaged file": f'{{"images": [{{"data": "{image[:40]}", "name": "{SECRET}.png"}}]}}',
        "no base64": f'{{"images": ["{SECRET}!"]}}',
        "unknown member": f'{{"{SECRET}": 1}}',
        "wrong type": f'{{"coverage": "{SECRET}"}}',
        "broken JSON": f'{{"text": "{SECRET}", {SECRET}',
        "too long": f'{{"text": "{SECRET * 3000}"}}',
        "unknown label": f'{{"text": "home", "label": "{SECRET}"}}',
    }
    sent = {
        f"{name} to {path}": request(body.encode(), "application/json", path)
        for name, body in bodies.items()
        for path in ("/v1/predict", "/v1/explain")
    }
    forms = {
        "form": part.format("text", "") + end,
        "file in a form": part.format("image", f'; filename="{SECRET}"') + end,
        "unknown field": part.format(SECRET, "") + end,
        "unknown field for a file": part.format(SECRET, f'; filename="{SECRET}"') + end,
        "cut off": part.format("text", ""),
        "broken form": SECRET,
    }
    sent |= {name: request(body.encode(), form) for name, body in forms.items()}
    address = f"/v1/predict?text={SECRET}"
    return sent | {
        "boundary": request(b"", f"multipart/form-data; boundary={SECRET}"),
        "type": request(b"", f"text/{SECRET}"),
        "coding": request(b"{}", "application/json", address, f"Content-Encoding: {SECRET}"),
        "query": request(b"{}", "application/json", address),
        "query of GET": request(path=address, method="GET"),
        "unknown path": request(path=f"/{SECRET}", method="GET"),
        "unknown problem": request(path=f"/problems/{SECRET}", method="GET"),
        "broken path": request(path=f"/{SECRET}\udcff", method="GET"),
        "method": request(b"{}", method=SECRET.upper()),
        "header": request(b"{}", "application/json", "/v1/predict", f"Referer: {SECRET}"),
        "broken header": request(b"{}", "application/json", "/v1/predict", f"{SECRET} x"),
        "web socket": request(b"", "", f"/{SECRET}", *WEB_SOCKET, method="GET"),
        "no HTTP": SECRET.encode() * 10 + b"\r\n\r\n",
    }


def test_nothing_of_a_request_is_written_down(server):
    before = len(server.log)
    for name, sent in requests().items():
        assert answer(server, Case(sent)), name
    log = logged(server)[before:]
    received = [line for line in log if SECRET in line.lower() or ".png" in line]
    assert not received
    assert any("POST /v1/predict 200" in line for line in log)
    assert any("POST /v1/predict 422" in line for line in log)
    assert any("POST /v1/explain 400" in line for line in log)
    assert SECRET not in server.get("/metrics").text.lower()


def test_no_file_is_left_behind(server):
    """Not in the folder for features, which training fills, nor among the model's."""
    places = [Path(os.environ["SGMFT_CACHE"]), Path(server.process.args[2])]
    before = [sorted(place.rglob("*")) for place in places]
    posts = [{"text": f"{SECRET} at home", "images": [base64.b64encode(FILE).decode()]}] * 3
    assert server.post("/v1/predict", json={"posts": posts}).status_code == 200
    assert server.post("/v1/predict", files={"image": FILE}).status_code == 200
    assert [sorted(place.rglob("*")) for place in places] == before


@pytest.mark.parametrize(
    "path", ["/v1/model", "/metrics", "/openapi.json", "/problems/busy", "/predict", "/x"]
)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "schluessel"},
        {"X-API-Key": KEY.encode()[:-1]},
        {"X-API-Key": "schlüssel".encode("latin-1")},
        {"Authorization": b"Bearer"},
        {"Authorization": b"Bearer " + KEY.encode() * 2},
        {"Authorization": b"Digest " + KEY.encode()},
        {"Authorization": b"Basic " + base64.b64encode(KEY.encode())},
        {"Authorization": b"Basic \xff"},
        {"Authorization": b"Basic " + base64.b64encode(KEY.encode() + b":")},
    ],
    ids=str,
)
def test_without_the_key_there_is_nothing(keyed, path, headers):
    refused = keyed.get(path, headers=headers)
    assert problem(refused) == (401, "unauthorized")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["www-authenticate"].startswith("Basic ")


def test_without_the_key_no_body_is_read(keyed):
    received = answer(keyed, Case(request(b"", length=1000)))
    assert received.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEY.encode()},
        {"x-api-key": KEY.encode()},
        {"Authorization": b"Bearer " + KEY.encode()},
        {"Authorization": b"bearer  " + KEY.encode()},
        {"Authorization": b"Basic " + base64.b64encode(b":" + KEY.encode())},
        {"Authorization": b"Basic " + base64.b64encode(b"anyone:" + KEY.encode())},
        {"Authorization": b"Basic bm9ib2R5", "X-API-Key": KEY.encode()},
    ],
    ids=str,
)
def test_with_the_key_there_is_an_answer(keyed, headers):
    assert keyed.get("/v1/model", headers=headers).status_code == 200
    assert keyed.post("/v1/predict", json={"text": "home"}, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_whoever_looks_after_the_server_needs_no_key(keyed, path):
    assert keyed.get(path).status_code == 200
    assert keyed.get(f"{path}/").status_code == 401


def test_the_key_is_written_down_nowhere(keyed):
    for sent in (KEY.encode(), b"another"):
        keyed.get("/v1/model", headers={"Authorization": b"Bearer " + sent})
    log = "".join(logged(keyed))
    assert KEY not in log
    assert "another" not in log


def test_pickles_are_never_read(keyed, run_process, trained, mark, tmp_path):
    """Neither beside a model, as above, nor in place of its files."""
    models = [tmp_path / name for name in ("alone", "disguised")]
    for model in models:
        shutil.copytree(trained, model)
    (models[0] / "model.safetensors").unlink()
    in_place = models[1] / "model.safetensors"
    for place in (models[0] / "pytorch_model.bin", models[0] / "model.pt", in_place):
        place.write_bytes(pickle.dumps(Trap(mark)))
    with ThreadPoolExecutor(2) as pool:
        for ended in pool.map(lambda x: run_process("serve", x, "--port", 0, "--no-page"), models):
            assert ended.returncode == 2
            assert ended.stderr.startswith("sgmft: ")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Trap(mark)))  # as it would be
    assert mark.exists()
