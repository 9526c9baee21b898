"""The command `sgmft`: its commands, exit codes, signals and warnings."""

import os
import shlex
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer import Option
from typer.core import TyperGroup

from sgmft.cli import console
from sgmft.cli.options import HELP
from sgmft.errors import TEXTS, SgmftError, SgmftNotice, SgmftWarning
from sgmft.utils.distributed import is_main, rank, world_size
from sgmft.utils.runtime import Stopped, stoppable


class _Group(TyperGroup):
    """Handle signals with the command that continues, and a closed pipe without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with stoppable(), one_line_warnings():
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            again = shlex.join(["sgmft", *sys.argv[1:]])
            print(f"sgmft: stopped; to continue with what is done so far: {again}", file=sys.stderr)
            raise typer.Exit(stop.code if isinstance(stop, Stopped) else 130) from None
        except BrokenPipeError:  # whoever read our output has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None


app = typer.Typer(
    name="sgmft",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=HELP["sgmft"],
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sgmft {version('sgmft')}")
        raise typer.Exit


@app.callback()
def plugins(
    command: typer.Context,
    plugin: Annotated[list[str] | None, Option(help=HELP["plugin"])] = None,
    trust_remote_code: Annotated[bool, Option("--trust-remote-code", help=HELP["trust"])] = False,
    _: Annotated[
        bool, Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Load a user's own files before the command."""
    if world_size() > 1 and command.invoked_subcommand != "train":
        raise SgmftError(TEXTS["one process"], command=command.invoked_subcommand)
    if trust_remote_code:
        os.environ["SGMFT_TRUST_REMOTE_CODE"] = "1"
    for path in plugin or ():
        from sgmft.models.registry import load_plugin

        load_plugin(path)


NAMES = "fetch convert audit label train evaluate predict explain encode encoders suggest insight"
for name in (*NAMES.split(), "compare", "align", "export", "serve"):
    app.command(name)(getattr(import_module(f"sgmft.cli.{name}"), f"{name}_command"))


def main() -> None:
    """Run the command line; exits with 0, 2 for a mistake, 3 for no good row, 130 or 143."""
    try:
        app()
    except SgmftError as error:
        who = "sgmft" if is_main() else f"sgmft, process {rank()}"
        print(f"{who}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Show our own warnings as one line, without the place in the code, each once."""
    usual, console.started, console.told = warnings.showwarning, time.monotonic(), []

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, SgmftWarning):
            if str(message) in console.told:  # tables are read more than once
                return
            console.told.append(str(message))
            what = "" if issubclass(category, SgmftNotice) else "Warning: "
            console.print_line(f"{what}{message}")
        elif is_main():
            usual(message, category, *where, **more)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
