"""Options that several commands share, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgmft.errors import SgmftError

if TYPE_CHECKING:
    from sgmft.data.source import Source
    from sgmft.jobs.cluster.ray import OnRay
    from sgmft.locator.locator import SemanticLocator
    from sgmft.training.finetune.settings import Tuning

PREFIX = "tune."  # of settings of fine-tuning

PostsTable = Annotated[
    str,
    typer.Argument(
        help="Posts: .csv, .tsv, .jsonl, .parquet, a Label Studio .json, an ImageFolder, or -."
    ),
]

Model = Annotated[str, typer.Argument(help="A folder that `sgmft train` wrote.")]

Output = Annotated[str, typer.Option("--output", "-o", help="Where the result goes.")]

Encoder = Annotated[
    str | None,
    typer.Option(
        help="compact, chinese-clip-huge, -large, -base, or a checkpoint's folder; by default "
        "compact, or what the method brings along."
    ),
]

Cleaning = Annotated[
    str | None, typer.Option(help="Text cleaning: light, paper or none; by default the preset's.")
]

Tune = Annotated[
    str,
    typer.Option(
        help="head: the encoder stays as it is; lora or full: Chinese-CLIP is trained as well."
    ),
]

TuneLast = Annotated[
    int | None, typer.Option(min=1, help="Train the last layers only, this many of each tower.")
]

Merge = Annotated[
    bool, typer.Option(help="With --tune lora: save a whole checkpoint, not its changes alone.")
]

Features = Annotated[
    str | None,
    typer.Option(help="Feature store; kept in your cache folder by default, 'none' keeps nothing."),
]

Where = Annotated[
    list[str] | None, typer.Option(help="Only rows with COLUMN=VALUE; may be repeated.")
]

Column = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="FIELD=COLUMN where the table's names differ; "
        "FIELD is text, image, id, label or user.",
    ),
]

AllowOutside = Annotated[bool, typer.Option(help="Also read pictures outside the table's folder.")]

Strict = Annotated[bool, typer.Option(help="Stop at the first bad row.")]

Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default what is there.")]

Engine = Annotated[
    str | None,
    typer.Option(help="local, or ray: work on a cluster (pip install 'sgmft\\[scale]')."),
]

Address = Annotated[
    str | None,
    typer.Option(
        help="Of the Ray cluster; auto for the one this machine belongs to. By default one is "
        "begun on this machine."
    ),
]

Workers = Annotated[
    int | None, typer.Option(min=1, help="With --engine ray; by default one for each processor.")
]


def source_of(
    table: str,
    where: list[str] | None,
    column: list[str] | None,
    allow_outside: bool,
    strict: bool,
) -> Source:
    """The table and how to read it; SgmftError for a flag that cannot be understood."""
    from sgmft.data.source import Source
    from sgmft.data.tables import Columns

    names = pairs(column, "--column")
    fields = ("text", "image", "id", "label", "user")
    if unknown := names.keys() - set(fields):
        raise SgmftError(f"--column {unknown.pop()}=...: the fields are {', '.join(fields)}.")
    return Source(table, Columns(**names), pairs(where, "--where"), allow_outside, strict)


def tuning_of(
    kind: str, last: int | None, merge: bool, settings: Mapping[str, str]
) -> Tuning | None:
    """How the encoder is fine-tuned, if it is; `settings` may hold others without "tune."."""
    from sgmft.training.finetune import settings as tuning

    chosen: dict[str, Any] = {
        name.removeprefix(PREFIX): value
        for name, value in settings.items()
        if name.startswith(PREFIX)
    }
    chosen |= {"last": last} if last is not None else {}
    return tuning.tuning_of(kind, chosen | ({"merge": True} if merge else {}))


@contextmanager
def engine_of(
    engine: str | None, address: str | None, workers: int | None, device: str | None
) -> Iterator[OnRay | None]:
    """The cluster that was asked for, connected; None where the work is to be done here."""
    if engine not in (None, "local", "ray"):
        raise SgmftError(f"There is no engine {engine!r}: use local or ray.")
    if engine != "ray":
        if address or workers:
            raise SgmftError("--address and --workers are for --engine ray.")
        yield None
        return
    from sgmft.jobs.cluster.ray import OnRay

    cluster = OnRay(address, workers, gpu=device is not None and device != "cpu")
    try:
        yield cluster
    finally:
        cluster.close()


def locator_of(model: str, features: str | None, device: str | None) -> SemanticLocator:
    """A saved model, with the feature store that was asked for."""
    from sgmft.cli import console
    from sgmft.locator.locator import SemanticLocator

    folder = console.feature_folder(features)
    return SemanticLocator.from_pretrained(model, features=folder, device=device)


def pairs(items: list[str] | None, flag: str) -> dict[str, str]:
    """NAME=VALUE options as a mapping; SgmftError for one without "=", or with two values."""
    found: dict[str, str] = {}
    for item in items or ():
        name, equals, value = item.partition("=")
        if not equals:
            raise SgmftError(f"{flag} {item}: write it as NAME=VALUE.")
        if found.setdefault(name, value) != value:
            raise SgmftError(f"{flag} {item}: {name} was given as {found[name]!r} already.")
    return found
