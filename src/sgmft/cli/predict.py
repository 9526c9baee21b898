"""`sgmft predict`: label the rows of a table."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Annotated, Any

from typer import Argument, Option

from sgmft.cli import console, options as opt
from sgmft.errors import SgmftError
from sgmft.utils.templates import pick_language


def predict_command(
    model: Annotated[str, Argument(help="Of `sgmft train` or `export`; none with --zero-shot.")],
    table: Annotated[str | None, Argument(help="Posts, as for train.")] = None,
    output: opt.Output = "-",
    coverage: Annotated[float | None, Option(help=opt.HELP["coverage"])] = None,
    min_probability: Annotated[float | None, Option(help=opt.HELP["min_probability"])] = None,
    reject: Annotated[float | None, Option(help=opt.HELP["reject"])] = None,
    runtime: Annotated[str | None, Option(help=opt.HELP["runtime"])] = None,
    zero_shot: Annotated[str | None, Option(help="LABEL=TEXT|TEXT;LABEL=... for a model.")] = None,
    encoder: Annotated[str | None, Option(help="With --zero-shot; as for train.")] = None,
    ask_llm_below: Annotated[float | None, Option(help=opt.HELP["below"], min=0, max=1)] = None,
    llm: Annotated[str | None, Option(help=opt.HELP["llm"])] = None,
    llm_model: Annotated[str | None, Option(help="Its name on the server.")] = None,
    llm_labels: Annotated[str | None, Option(help=opt.HELP["route_labels"])] = None,
    llm_budget: Annotated[int | None, Option(help=opt.HELP["llm_budget"], min=0)] = None,
    shard_rows: Annotated[int | None, Option(help=opt.HELP["shard_rows"], min=1)] = None,
    engine: opt.Engine = None,
    address: opt.Address = None,
    workers: opt.Workers = None,
    features: opt.Features = None,
    features_table: opt.FeaturesTable = None,
    where: opt.Where = None,
    column: opt.Column = None,
    format: opt.Format = None,
    allow_outside: opt.AllowOutside = False,
    strict: opt.Strict = False,
    summary_file: opt.Summary = None,
    device: opt.Device = None,
) -> None:
    """Write a table again with a label, probabilities and, for bad rows, the reason.

    An output without a suffix is a folder of Parquet shards: what was stopped continues there, and
    a cluster can write it.
    """
    from sgmft.jobs.predict import ModelFolder, is_shards, predict_table
    from sgmft.locator.abstention import Abstention
    from sgmft.locator.onnx.locator import is_exported
    from sgmft.locator.prediction import SupportsPredictions
    from sgmft.models.baselines.zero_shot import parse_descriptions

    abstain = Abstention(coverage, min_probability, reject)
    if zero_shot is not None and table is not None:
        raise SgmftError(f"With --zero-shot there is no model: leave {model} out.")
    if zero_shot is not None and is_shards(output):
        raise SgmftError(f"With --zero-shot the output is one file, not a folder: {output}.csv?")
    if zero_shot is None:
        if table is None:
            raise SgmftError("predict needs a model and a table: sgmft predict MODEL TABLE.")
        if encoder:
            raise SgmftError("A model brings its encoder: leave --encoder out.")
        if features not in (None, "none") and is_exported(model):
            raise SgmftError("An exported model keeps no features: leave out --features.")
    if ask_llm_below is None and (llm or llm_model or llm_labels or llm_budget is not None):
        raise SgmftError("Options that begin with --llm are for --ask-llm-below.")
    if ask_llm_below is not None and (llm is None or llm_model is None or is_shards(output)):
        raise SgmftError("--ask-llm-below needs --llm, --llm-model, and one file as the output.")
    if engine == "ray" and not is_shards(output):
        raise SgmftError(f"{output} is one file: for shards, give the name of a folder.")
    posts = table or model
    source = opt.make_source(posts, where, column, format, allow_outside, strict, features_table)
    if engine == "ray" and features is None:
        features = "none"  # a cluster's machines have caches of their own
    folder = console.feature_folder(features)
    adapt: list[Callable[[Iterable[Any]], object]] = []
    opening = opt.open_engine(engine, address, workers, device)
    with console.counter("Predicting") as done, opening as run, ExitStack() as stack:
        encoder = opt.pick_encoder(encoder, features_table)
        predictor: ModelFolder | SupportsPredictions
        predictor = ModelFolder(model, runtime, folder, device, encoder)
        if zero_shot is not None:
            from sgmft.locator.locator import SemanticLocator

            texts = parse_descriptions(zero_shot)
            described = SemanticLocator.zero_shot(texts, encoder, features=folder, device=device)
            predictor = described
            adapt.append(described.adapt)
        if ask_llm_below is not None and llm and llm_model:
            from sgmft.jobs.label import PROMPTS, LanguageModel

            first = predictor.load() if isinstance(predictor, ModelFolder) else predictor
            about = parse_descriptions(llm_labels, "--llm-labels") if llm_labels else {}
            if not {*about} <= {*first.labels}:
                raise SgmftError(f"--llm-labels: name the model's, {', '.join(first.labels)}.")
            means = {x: about.get(x, [x]) for x in first.labels}
            how = means, PROMPTS / f"{pick_language(None)}.txt"
            predictor = LanguageModel(
                llm, llm_model, *how, first=first, below=ask_llm_below, budget=llm_budget
            )
            adapt.append(predictor.adapt)
            console.print_text("routing", model=predictor)
            stack.callback(console.print_text, "spent", model=predictor)
        summary = predict_table(source, output, predictor, abstain, adapt, shard_rows, run, done)
    wrote = "" if output == "-" else f"Wrote {summary.posts} rows to {output}"
    console.finish(summary, summary_file, None if zero_shot else model, wrote)
