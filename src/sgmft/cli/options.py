"""Options that several commands share, and the objects made of them."""

import json
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Context, Option

from sgmft.cli import console
from sgmft.errors import TEXTS, SgmftError, check_name, raising
from sgmft.utils.files import write_file

if TYPE_CHECKING:
    from sgmft.data.source import Source as Source
    from sgmft.jobs.cluster import pieces
    from sgmft.locator.locator import SemanticLocator
    from sgmft.training.finetune.settings import Tuning

TUNE = "tune."  # of settings of fine-tuning
HELP: dict[str, str] = tomllib.loads(Path(__file__).with_name("help.toml").read_text("utf-8"))


def read_config(context: Context, path: str | None) -> str | None:
    """Make what a TOML file says of options, by their names, the defaults of a command's own."""
    if path is None:
        return None
    with raising(f"{path} cannot be read as TOML: {{error}}.", OSError, ValueError):
        values = tomllib.loads(Path(path).read_text("utf-8"))
    named = {word.lstrip("-"): option for option in context.command.params for word in option.opts}
    context.default_map = found = dict[str, Any]()
    for key, value in values.items():
        check_name(key, named, f"{path}: there is no option")
        option: Any = named[key]
        if isinstance(value, dict):
            value = [f"{name}={_as_typed(x)}" for name, x in value.items()]
        several = value if isinstance(value, list) else [value]
        found[option.name] = [*map(_as_typed, several)] if option.multiple else _as_typed(value)
        # what it raises is of Typer's own kind, which no version of it makes public
        with raising(f"{path}: {key} = {value!r}: {{error}}", Exception):
            option.process_value(context, found[option.name])
    return path


def _as_typed(value: Any) -> str:
    """Return a value of TOML as one types it on the command line."""
    if isinstance(value, list):
        return ",".join(map(_as_typed, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def write_config(context: Context, path: Path, command: str) -> None:
    """Write a file for `read_config`, with which a command runs as it did."""
    lines, apart = [f"# {' '.join(command.split())}"], ("config", "finished_only")
    for option in context.command.params:
        value = context.params[option.name]
        if value not in (None, (), []) and option.name not in apart:
            text = json.dumps(value, ensure_ascii=False, default=str)
            lines.append(f"{option.opts[0].lstrip('-')} = {text}")
    write_file(path, "\n".join([*lines, ""]).encode(errors="replace"))


PostsTable = Annotated[str, Argument(help=HELP["posts_table"])]
Model = Annotated[str, Argument(help="A folder that `sgmft train` wrote.")]
Output = Annotated[str, Option("--output", "-o", help="Where the result goes.")]
Encoder = Annotated[str | None, Option(help=HELP["encoder"])]
Cleaning = Annotated[str | None, Option(help="Of texts: light, paper or none; else the preset's.")]
TextEncoder = Annotated[str | None, Option(help="Of the texts; the pictures' is then compact.")]
ImageEncoder = Annotated[str | None, Option(help="Of the pictures; the texts' is then compact.")]
TuneLast = Annotated[int | None, Option(min=1, help="Train only so many last layers of a tower.")]
Merge = Annotated[bool, Option(help="With --tune lora: save a checkpoint, not its changes alone.")]
_BALANCED = Option(metavar="balanced", help="Every label counts the same, however rare.")
ClassWeights = Annotated[Literal["balanced"] | None, _BALANCED]
Attributes = Annotated[str | None, Option(help=HELP["attributes"])]
Features = Annotated[str | None, Option(help=HELP["features"])]
FeaturesTable = Annotated[str | None, Option(help=HELP["features_table"])]
Summary = Annotated[str | None, Option("--summary", help=HELP["summary"])]
Where = Annotated[list[str] | None, Option(help="Only rows with COLUMN=VALUE; may be repeated.")]
Column = Annotated[list[str] | None, Option("--column", help=HELP["column"])]
Format = Annotated[str | None, Option("--format", help=HELP["format"])]
By = Annotated[list[str] | None, Option(help="Column to break accuracy down by; repeat.")]
AllowOutside = Annotated[bool, Option(help="Also read pictures outside the table's folder.")]
Fixes = Annotated[str | None, Option(help="Corrected labels: a table of id, label, new_label.")]
Strict = Annotated[bool, Option(help="Stop at the first bad row.")]
Device = Annotated[str | None, Option(help="cpu, cuda, ...; by default what is there.")]
Engine = Annotated[str | None, Option(help="local, or ray (pip install 'sgmft\\[scale]').")]
Address = Annotated[str | None, Option(help=HELP["address"])]
Workers = Annotated[int | None, Option(min=1, help="With --engine ray; else one a processor.")]
Lang = Annotated[Literal["en", "zh"] | None, Option(metavar="en|zh", help="Of pages; else yours.")]
Config = Annotated[str | None, Option(is_eager=True, callback=read_config, help=HELP["config"])]


def make_source(
    table: PostsTable,
    where: Where = None,
    column: Column = None,
    format: Format = None,
    allow_outside: AllowOutside = False,
    strict: Strict = False,
    features_table: str | None = None,
) -> "Source":
    """Return the table and how to read it; SgmftError for an option that makes no sense."""
    from sgmft.data.source import Source
    from sgmft.data.tables import Columns

    names = parse_pairs(column, "--column")
    fields = [*Columns.__dataclass_fields__]
    if unknown := names.keys() - set(fields):
        raise SgmftError(f"--column {unknown.pop()}=...: the fields are {', '.join(fields)}.")
    names |= {} if features_table is None else {"image": ""}
    rows = parse_pairs(where, "--where")
    return Source(table, Columns(**names), rows, allow_outside, strict, format)


def reads_posts(command: Callable[..., None]) -> Callable[..., None]:
    """Put the parameters of `make_source` in place of a command's parameter `source`."""
    own, read = (dict(signature(x).parameters) for x in (command, make_source))
    del own["source"], read["features_table"]  # which only some commands have
    every = [x.replace(kind=Parameter.KEYWORD_ONLY) for x in (*own.values(), *read.values())]

    @wraps(command)
    def run(**given: Any) -> None:
        options = {name: given.pop(name) for name in read if name in given}
        command(source=make_source(**options, features_table=given.get("features_table")), **given)

    run.__annotations__ = {x.name: x.annotation for x in every}
    run.__signature__ = Signature(every)  # type: ignore[attr-defined]
    return run


def pick_encoder(
    name: str | None, table: str | None, text: str | None = None, image: str | None = None
) -> str | None:
    """Return the encoder that is named, a features table as one, or one of two halves."""
    halves = f"{text or 'compact'}+{image or 'compact'}" if text or image else None
    given = [name, halves, None if table is None else f"table:{Path(table).absolute()}"]
    if len(found := [x for x in given if x is not None]) > 1:
        raise SgmftError(TEXTS["one encoder"])
    return found[0] if found else None


def make_tuning(kind: str, last: int | None, merge: bool, named: dict[str, str]) -> "Tuning | None":
    """Return how the encoder is fine-tuned, if it is, from settings that begin with "tune."."""
    from sgmft.training.finetune import settings as tuning

    chosen: dict[str, Any] = {x.removeprefix(TUNE): named[x] for x in named if x.startswith(TUNE)}
    chosen |= {"last": last} if last is not None else {}
    return tuning.tuning_of(kind, chosen | ({"merge": True} if merge else {}))


@contextmanager
def open_engine(
    engine: str | None, address: str | None, workers: int | None, device: str | None
) -> "Iterator[pieces.Engine]":
    """Open the engine that does the pieces of a job: this process, or a Ray cluster."""
    check_name(engine or "local", ("local", "ray"), "There is no engine")
    if engine == "ray":
        from sgmft.jobs.cluster.ray import RayEngine

        with closing(RayEngine(address, workers, gpu=device not in (None, "cpu"))) as cluster:
            yield cluster
    elif address or workers:
        raise SgmftError("--address and --workers are for --engine ray.")
    else:
        from sgmft.jobs.cluster.pieces import run_here

        yield run_here


def load_locator(
    model: str, features: str | None, device: str | None, encoder: str | None = None
) -> "SemanticLocator":
    """Load a saved model, with the feature store of `--features`."""
    from sgmft.locator.locator import SemanticLocator

    folder = console.feature_folder(features)
    return SemanticLocator.from_pretrained(model, features=folder, device=device, encoder=encoder)


def parse_pairs(items: list[str] | None, flag: str) -> dict[str, str]:
    """Parse NAME=VALUE options; SgmftError for one without "=", or a name with two values."""
    found: dict[str, str] = {}
    for item in items or ():
        name, equals, value = item.partition("=")
        if not equals:
            raise SgmftError(f"{flag} {item}: write it as NAME=VALUE.")
        if found.setdefault(name, value) != value:
            raise SgmftError(f"{flag} {item}: {name} was given as {found[name]!r} already.")
    return found
