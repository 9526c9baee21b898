"""What /openapi.json promises is what the server does, for what schemathesis thinks of."""

import json
import re
from functools import reduce
from types import SimpleNamespace

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from sgmft.serving.app import create_app
from sgmft.serving.problems import Limits

ADDRESSES = [
    ("POST", "/v1/predict"),
    ("POST", "/v1/explain"),
    ("POST", "/setup"),
    ("POST", "/predict"),
    ("POST", "/webhook"),
    ("GET", "/v1/model"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/problems/{kind}"),
]


@pytest.fixture(scope="session")
def described(server):
    return schemathesis.openapi.from_url(f"{server.address}/openapi.json")


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.name.lower())
@pytest.mark.parametrize(("method", "path"), ADDRESSES, ids=lambda word: word)
def test_every_answer_is_as_the_document_says(described, method, path, mode):
    """Statuses, types and shapes; what breaks the document is refused, and nothing is a 500.

    What fits it may be refused too: it cannot say what is base64, or how much a model can promise.
    """
    address = described[path][method]
    if mode is GenerationMode.NEGATIVE and method == "GET":
        pytest.skip("nothing to get wrong")

    @settings(suppress_health_check=list(HealthCheck))
    @given(case=address.as_strategy(generation_mode=mode))
    def check(case):
        unchecked = [positive_data_acceptance]
        if case.media_type != "application/json":  # every value of a form is a text
            unchecked.append(negative_data_rejection)
        case.call_and_validate(timeout=30, excluded_checks=unchecked)

    check()


def test_every_address_is_in_the_document(described):
    found = [x.ok() for x in described.get_all_operations()]
    assert sorted((x.method.upper(), x.path) for x in found) == sorted(ADDRESSES)


def test_every_reference_leads_somewhere(server):
    document = server.get("/openapi.json").json()
    page = server.get("/docs").text
    assert all(f" {path}</code></h2>" in page for path in document["paths"])
    references = re.findall(r'"\$ref": "#/(.*?)"', json.dumps(document))
    assert any("ImageRequest" in place for place in references)
    for place in references:
        reduce(lambda found, part: found[part], place.split("/"), document)


def described_with(key):
    """The document of a server that asks for this key."""
    model = SimpleNamespace(labels=("Home", "Work"), traits={})
    engine = SimpleNamespace(model=model, limits=Limits())
    app = create_app(engine, key)
    assert app.openapi() == app.openapi()
    return app.openapi()


def test_a_key_is_in_the_document_where_there_is_one():
    document = described_with("key")
    schemes = document["components"]["securitySchemes"]
    assert {name: x.get("scheme", x.get("name")) for name, x in schemes.items()} == {
        "bearer": "bearer",
        "header": "X-API-Key",
        "basic": "basic",
    }
    each = [{"bearer": []}, {"header": []}, {"basic": []}]
    for path, methods in document["paths"].items():
        for method in methods.values():
            is_open = path in ("/health", "/ready")
            assert method.get("security", []) == ([] if is_open else each)
            assert ("401" in method["responses"]) is not is_open


def test_without_a_key_the_document_knows_of_none():
    document = described_with(None)
    assert "security" not in str(document)
    found = [x["responses"] for methods in document["paths"].values() for x in methods.values()]
    assert found
    assert not any("401" in responses for responses in found)
