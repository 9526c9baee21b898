"""The HTTP API: what is asked for where, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from sgmft.serving import requests as asked
from sgmft.serving.engine import Engine
from sgmft.serving.guard import OPEN, Guard, as_response
from sgmft.serving.metrics import Metrics
from sgmft.serving.problems import KINDS, MEDIA_TYPE, Problem
from sgmft.serving.responses import (
    ExplanationResponse,
    ModelResponse,
    PredictionResponse,
    PredictionsResponse,
    ProblemResponse,
    StateResponse,
)

Answer = TypeVar("Answer")

_SCHEMAS = "#/components/schemas/"

_KEYS: dict[str, dict[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "The key as password, any name."},
}


def create_app(engine: Engine, key: str | None = None) -> FastAPI:
    """The application around an engine that has been started.

    Args:
        key: what requests must show; None asks for nothing.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.run()
        yield
        await engine.close()

    app = FastAPI(
        title="sgmft",
        version=version("sgmft"),
        description="The semantic location of social-media posts, from their text and pictures.",
        lifespan=lifespan,
        docs_url=None,  # these pages fetch their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # to an address that the request's own Host names
        separate_input_output_schemas=False,
    )
    metrics = Metrics(engine)
    _add_predicting(app, engine, metrics)
    _add_looking(app, engine, metrics)
    app.add_exception_handler(HTTPException, _no_route)
    _complete(app, key is not None)
    app.add_middleware(Guard, limits=engine.limits, metrics=metrics, key=key)
    return app


def _add_predicting(app: FastAPI, engine: Engine, metrics: Metrics) -> None:
    labels = engine.about.labels

    @app.post(
        "/v1/predict",
        response_model=PredictionsResponse,
        responses=_problems(400, 408, 413, 415, 422, 500, 503),
        openapi_extra=_body("OnePost", "ManyPosts"),
    )
    async def predict(request: Request) -> PredictionsResponse:
        """Label one post or several; a post that cannot be used comes back with its `error`."""
        with engine.place():
            given = await asked.read_posts(request, engine.limits)
            said = await _while_there(request, engine.predict(given.posts, given.rules))
        metrics.posts(said)
        return PredictionsResponse(predictions=[PredictionResponse.of(x, labels) for x in said])

    @app.post(
        "/v1/explain",
        response_model=ExplanationResponse,
        responses=_problems(400, 408, 413, 415, 422, 500, 503)
        | {200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
        openapi_extra=_body("Explained"),
    )
    async def explain(request: Request) -> Any:
        """Why the model says what it says of one post: numbers, or a page (`Accept: text/html`)."""
        with engine.place():
            given = await asked.read_explained(request, engine.limits)
            asking = engine.explain(given.posts[0], given.label, given.rules)
            said, why = await _while_there(request, asking)
        metrics.posts([said])
        if "text/html" in request.headers.get("accept", ""):
            from sgmft.evaluation.explain.page import explanation_page

            return HTMLResponse(explanation_page([why], title="Why this label"))
        told = PredictionResponse.of(said, labels)
        return ExplanationResponse(prediction=told, explanation=why.to_dict())


def _add_looking(app: FastAPI, engine: Engine, metrics: Metrics) -> None:
    @app.get("/v1/model", response_model=ModelResponse)
    async def model() -> ModelResponse:
        """The model that answers, and the limits of requests."""
        return ModelResponse.of(engine.about, version("sgmft"), dict(vars(engine.limits)))

    @app.get("/health", response_model=StateResponse)
    async def health() -> StateResponse:
        """Whether the server runs."""
        return StateResponse(status="ok")

    @app.get("/ready", response_model=StateResponse, responses=_problems(503))
    async def ready() -> StateResponse:
        """Whether the model can be asked; not while its worker is started again."""
        if not engine.ready:
            raise Problem("worker-stopped", retry=5)
        return StateResponse(status="ready")

    @app.get("/metrics", response_class=Response)
    async def counted() -> Response:
        """What is counted, for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/problems/{kind}", responses=_problems(404))
    async def problem(kind: str) -> dict[str, Any]:
        """What a kind of problem means."""
        if kind not in KINDS:
            raise Problem("not-found", "There is no such kind of problem.")
        return KINDS[kind]._asdict()


async def _while_there(request: Request, asking: Coroutine[Any, Any, Answer]) -> Answer:
    """The answer, unless the client leaves before it comes."""
    answer = asyncio.ensure_future(asking)
    gone = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code not in (404, 405):
        return JSONResponse({"detail": error.detail}, error.status_code)
    response = as_response(Problem("not-found" if error.status_code == 404 else "not-allowed"))
    response.headers.update(error.headers or {})
    return response


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents that an address may answer with."""
    schema = {"schema": ProblemResponse.model_json_schema()}
    return {
        status: {
            "description": "; ".join(x.title for x in KINDS.values() if x.status == status),
            "content": {MEDIA_TYPE: schema},
        }
        for status in statuses
    }


def _complete(app: FastAPI, closed: bool) -> None:
    """Write into the document what FastAPI cannot know: its handlers take the whole request.

    Args:
        closed: whether a key is asked for.
    """
    kinds = (asked.OnePost, asked.ManyPosts, asked.Explained)
    _, found = models_json_schema(
        [(kind, "validation") for kind in kinds], ref_template=_SCHEMAS + "{model}"
    )
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        document["components"]["schemas"].update(found["$defs"])
        if closed:
            _close(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's own documentation does


def _close(document: dict[str, Any]) -> None:
    """Say how the key is shown, and that there is no answer without it; `Guard` sees to both."""
    document["components"]["securitySchemes"] = _KEYS
    document["security"] = [{name: []} for name in _KEYS]  # any one of them
    refused = {str(status): told for status, told in _problems(401).items()}
    for path, methods in document["paths"].items():
        for method in methods.values():
            if path in OPEN:
                method["security"] = []
            else:
                method["responses"] |= refused


def _body(*names: str) -> dict[str, Any]:
    """What an address reads, for its OpenAPI document."""
    kinds = [{"$ref": _SCHEMAS + name} for name in names]
    form = {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "images": {"type": "array", "items": {"type": "string", "format": "binary"}},
        },
    }
    schema = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    content = {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}
