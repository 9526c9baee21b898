"""`sgmft label`: label posts by a language model."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from sgmft.cli import console, options as opt
from sgmft.utils.templates import pick_language


@opt.reads_posts
def label_command(
    source: "opt.Source",
    llm: Annotated[str, Option(help=opt.HELP["llm"])],
    model: Annotated[str, Option(help="Its name on the server.")],
    labels: Annotated[str, Option(help=opt.HELP["llm_labels"])],
    output: opt.Output = "-",
    prompt: Annotated[Path | None, Option(help=opt.HELP["prompt"], metavar="FILE")] = None,
    lang: Annotated[str | None, Option(help="Of the prompt, en or zh; else yours.")] = None,
    max_images: Annotated[int, Option(help="Pictures that are sent of a post.", min=0)] = 4,
    image_size: Annotated[int, Option(help="Their longer side, in pixels.", min=16)] = 512,
    votes: Annotated[int, Option(help=opt.HELP["votes"], min=0)] = 0,
    max_tokens: Annotated[int, Option(help="Of an answer.", min=1)] = 32,
    workers: Annotated[int, Option(help="Requests at once.", min=1)] = 8,
    timeout: Annotated[float, Option(help="Seconds for an answer.", min=0.1)] = 120,
    price: Annotated[tuple[float, float] | None, Option(help=opt.HELP["price"])] = None,
    key_env: Annotated[str, Option(help="Variable with the server's key.")] = "OPENAI_API_KEY",
    cache: Annotated[Path | None, Option(help=opt.HELP["answer_cache"], metavar="FILE")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Count, and send nothing.")] = False,
    summary_file: opt.Summary = None,
) -> None:
    """Label posts by a language model, whose server is sent their texts and pictures."""
    from sgmft.jobs.label import PROMPTS, LanguageModel
    from sgmft.jobs.predict import predict_table
    from sgmft.models.baselines.zero_shot import parse_descriptions

    about = parse_descriptions(labels, "--labels"), prompt or PROMPTS / f"{pick_language(lang)}.txt"
    counts = max_images, image_size, votes, max_tokens, workers
    teacher = LanguageModel(llm, model, *about, *counts, timeout, price, key_env, cache)

    def announce(posts: Any) -> None:
        console.print_text("sending", found=teacher.survey(posts), model=teacher, dry_run=dry_run)

    if dry_run:
        return announce(source.iter_posts())
    with ExitStack() as stack, console.counter("Labelling") as done:
        stack.callback(console.print_text, "spent", model=teacher)
        summary = predict_table(source, output, teacher, adapt=[announce], on_predicted=done)
    wrote = "" if output == "-" else f"Wrote {summary.posts} rows to {output}"
    console.finish(summary, summary_file, model, wrote)
