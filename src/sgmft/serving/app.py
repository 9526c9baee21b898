"""The HTTP API: its addresses, and their responses."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi.responses import HTMLResponse
from fastapi.security import APIKeyHeader
from fastapi.security.http import HTTPBase
from prometheus_client import generate_latest
from pydantic.json_schema import models_json_schema
from starlette.requests import ClientDisconnect

from sgmft.evaluation.explain.page import explanation_page
from sgmft.serving import responses
from sgmft.serving.engine import InferenceEngine
from sgmft.serving.guard import Guard, ServerMetrics
from sgmft.serving.label_studio import LabelStudio
from sgmft.serving.problems import MEDIA_TYPE, PROBLEMS, Problem
from sgmft.serving.requests import ExplainedPost, ManyPosts, OnePost, parse_request
from sgmft.utils.templates import render

Result = TypeVar("Result")
_BODIES, _SCHEMA = (OnePost, ManyPosts, ExplainedPost), "#/components/schemas/{model}"
_PARTS = json.loads(Path(__file__).with_name("openapi.json").read_text("utf-8"))  # schemas

# Ways to show the key, for the OpenAPI document: it is `Guard` that checks it.
_KEYS = (
    HTTPBase(scheme="bearer", scheme_name="bearer", auto_error=False),
    APIKeyHeader(name="X-API-Key", scheme_name="header", auto_error=False),
    HTTPBase(scheme="basic", scheme_name="basic", description="Key as password.", auto_error=False),
)


def create_app(
    engine: InferenceEngine, key: str | None = None, studio: LabelStudio | None = None
) -> FastAPI:
    """Create the application around a started engine; with a `key`, requests must show it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.run()
        yield
        await engine.close()

    about = "The semantic location of social-media posts, from their text and pictures."
    # Those pages fetch their scripts from elsewhere; redirects name the request's own Host.
    off: Any = {"docs_url": None, "redoc_url": None, "redirect_slashes": False}
    off |= {"separate_input_output_schemas": False, "lifespan": lifespan}
    app = FastAPI(title="sgmft", version=version("sgmft"), description=about, **off)
    metrics = ServerMetrics(engine)
    closed = APIRouter()
    if key is not None:
        closed = APIRouter(dependencies=[Security(x) for x in _KEYS], responses=_problems(401))
    _add_routes(closed, app, engine, metrics)
    studio = studio or LabelStudio(engine)
    problems = _problems(400, 408, 413, 415, 422, 500, 503)
    for answer in (studio.setup, studio.predict, studio.webhook):
        closed.post(f"/{answer.__name__}", responses=problems, openapi_extra=_PARTS["body"])(answer)
    app.include_router(closed)
    for status, kind in ((404, "not-found"), (405, "not-allowed")):
        app.add_exception_handler(status, partial(_http_error, kind))
    app.add_middleware(Guard, limits=engine.limits, metrics=metrics, key=key)
    _, bodies = models_json_schema([(x, "validation") for x in _BODIES], ref_template=_SCHEMA)

    def document() -> dict[str, Any]:
        found = FastAPI.openapi(app)
        found["components"]["schemas"].update(bodies["$defs"])  # to which `_body` refers
        return found

    app.openapi = document  # type: ignore[method-assign]
    return app


def _add_routes(
    router: APIRouter, app: FastAPI, engine: InferenceEngine, metrics: ServerMetrics
) -> None:
    problems = _problems(400, 408, 413, 415, 422, 500, 503)
    pages = {"content": {"text/html": {"schema": {"type": "string"}}}}

    @router.post("/v1/predict", responses=problems, openapi_extra=_body("OnePost", "ManyPosts"))
    async def predict_posts(request: Request) -> responses.PredictionsResponse:
        """Label one post or several; a post that cannot be used comes back with its `error`."""
        with engine.places.take():
            given = await parse_request(request, engine.limits, OnePost)
            found = await unless_gone(request, engine.predict(given.posts, given.rules))
        metrics.count_posts(found)
        predictions = [responses.PredictionResponse.of(x, engine.model.labels) for x in found]
        return responses.PredictionsResponse(predictions=predictions)

    @router.post(
        "/v1/explain",
        response_model=responses.ExplanationResponse,
        responses=problems | {200: pages},
        openapi_extra=_body("ExplainedPost"),
    )
    async def explain_post(request: Request) -> Any:
        """Explain the prediction of one post: as numbers, or as a page (`Accept: text/html`)."""
        with engine.places.take():
            given = await parse_request(request, engine.limits, ExplainedPost)
            explaining = engine.explain(given.posts[0], given.label, given.rules)
            prediction, explanation = await unless_gone(request, explaining)
        metrics.count_posts([prediction])
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(explanation_page([explanation]))
        answer = responses.PredictionResponse.of(prediction, engine.model.labels)
        return {"prediction": answer, "explanation": explanation.to_dict()}

    @router.get("/v1/model")
    async def model() -> responses.ModelResponse:
        """The model that is served, and the limits of requests."""
        facts = dict(engine.model) | {"version": version("sgmft"), "limits": vars(engine.limits)}
        return responses.ModelResponse(**facts)

    @router.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        """Metrics for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    @router.get("/problems/{kind}", responses=_problems(404))
    async def problem(kind: str) -> dict[str, Any]:
        """The meaning of a kind of problem."""
        if kind not in PROBLEMS:
            raise Problem("not-found", "There is no such kind of problem.")
        return PROBLEMS[kind]._asdict()

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        found = app.openapi()
        schemas = found["components"]["schemas"]
        return HTMLResponse(render("serving/page/templates/docs.html", schemas=schemas, **found))

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server runs."""
        return {"status": "ok"}

    @app.get("/ready", responses=_problems(503))
    async def ready() -> dict[str, str]:
        """Whether the model can answer; not while its worker is started again."""
        if not engine.ready:
            raise Problem("worker-stopped", retry=5)
        return {"status": "ready"}


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of some work; raise ClientDisconnect where the client leaves before."""
    result = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((result, gone), return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise ClientDisconnect
        return result.result()
    finally:
        result.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _http_error(kind: str, request: Request, error: Exception) -> Response:
    response = Problem(kind).response()
    response.headers.update(getattr(error, "headers", None) or {})
    return response


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {MEDIA_TYPE: {"schema": _PARTS["problem"]}}
    titles = {x: "; ".join(y.title for y in PROBLEMS.values() if y.status == x) for x in statuses}
    return {status: {"description": titles[status], "content": content} for status in statuses}


def _body(*names: str) -> dict[str, Any]:
    """Return the body of an address, for the OpenAPI document: `requests` reads it, not FastAPI."""
    kinds = [{"$ref": _SCHEMA.format(model=name)} for name in names]
    schema = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    content = {"application/json": {"schema": schema}, **_PARTS["form"]}
    return {"requestBody": {"required": True, "content": content}}
