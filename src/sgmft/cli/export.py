"""`sgmft export`: write a model as ONNX."""

from typing import Annotated

from typer import Option

from sgmft.cli import console, options as opt


def export_command(
    model: opt.Model,
    output: opt.Output,
    int8: Annotated[str | None, Option(help=opt.HELP["int8"], metavar="TABLE")] = None,
    column: opt.Column = None,
    allow_outside: opt.AllowOutside = False,
) -> None:
    """Write a model as ONNX, for `sgmft predict` without PyTorch or for any other runtime."""
    from sgmft.locator.locator import SemanticLocator
    from sgmft.locator.onnx.export import agreement, export_model
    from sgmft.locator.onnx.locator import OnnxLocator

    posts = None
    if int8 is not None:
        posts = opt.make_source(int8, None, column, None, allow_outside).read_posts()
    locator = SemanticLocator.from_pretrained(model)
    for path in export_model(locator, output, int8=posts):
        console.print_line(f"{path.stat().st_size / 1e6:8.1f} MB  {path}")
    if posts:
        same, compared = agreement(locator, OnnxLocator.load(output), posts)
        console.print_line(f"In 8 bits {same} of {compared} other posts keep their label.")
