"""`sgmft serve`: the HTTP API and the page."""

import math
from typing import Annotated

from typer import Option

from sgmft.cli import console, options as opt


def serve_command(
    model: opt.Model,
    host: Annotated[str, Option(help="Listens here; 0.0.0.0 is every address.")] = "127.0.0.1",
    port: Annotated[int, Option(help="0 takes one that is free.", min=0, max=65535)] = 8000,
    coverage: Annotated[float | None, Option(help="As for predict; a request may differ.")] = None,
    min_probability: Annotated[float | None, Option(help="As for predict.")] = None,
    reject: Annotated[float | None, Option(help="As for predict.")] = None,
    page: Annotated[bool, Option(help="With a page for people beside the API.")] = True,
    api_key: Annotated[str | None, Option(help=opt.HELP["api_key"], envvar="SGMFT_API_KEY")] = None,
    annotations: Annotated[str | None, Option(help=opt.HELP["annotations"])] = None,
    retrain: Annotated[str | None, Option(help=opt.HELP["retrain"])] = None,
    max_body: Annotated[float, Option(help="MiB of one request.")] = 32,
    max_posts: Annotated[int, Option(help="Posts of one request.")] = 64,
    max_pictures: Annotated[int, Option(help="Pictures of one post.")] = 16,
    max_pixels: Annotated[float, Option(help="Millions of one picture.")] = 50,
    max_seconds: Annotated[float, Option(help="To send headers; a body; to process it.")] = 30,
    max_requests: Annotated[int, Option(help="At a time; more are refused.")] = 64,
    max_connections: Annotated[int, Option(help="At a time; more are refused.")] = 500,
    batch: Annotated[int, Option(help="Posts that the model sees together.")] = 32,
    runtime: Annotated[str | None, Option(help="torch or onnx, as for predict.")] = None,
    device: opt.Device = None,
) -> None:
    """Answer requests over HTTP, with a page for people. Ctrl-C and SIGTERM finish open ones.

    MODEL may also be a folder that `sgmft export` wrote.
    """
    from sgmft.locator.abstention import Abstention
    from sgmft.locator.loading import check_model

    check_model(model, runtime)  # before seconds are spent on what it takes to serve it
    from sgmft.jobs.predict import ModelFolder
    from sgmft.serving.engine import InferenceEngine
    from sgmft.serving.label_studio import LabelStudio
    from sgmft.serving.problems import Limits
    from sgmft.serving.server import serve_model

    units = ("body", max_body, 2**20), ("pixels", max_pixels, 10**6)
    sizes = {key: int(x * unit) if math.isfinite(x) else 0 for key, x, unit in units}
    counts = {"posts": max_posts, "pictures": max_pictures, "requests": max_requests}
    counts |= {"connections": max_connections, "batch": batch}
    limits = Limits(**sizes, **counts, seconds=max_seconds)
    rules = Abstention(coverage, min_probability, reject)
    engine = InferenceEngine(ModelFolder(model, runtime, device=device), limits, rules)
    studio = LabelStudio(engine, annotations or "", retrain or "")

    def announce(address: str) -> None:
        console.print_line(f"sgmft serves {model} at {address}")

    serve_model(engine, host, port, announce, page=page, key=api_key or None, studio=studio)
