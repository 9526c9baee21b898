"""The rows, tables and figures a comparison knows: those of `rows.toml`, and of a user's file."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from sgmft.data.preprocessing.text import get_cleaning
from sgmft.errors import TEXTS, SgmftError, SgmftNotice, check_name, raising, warn
from sgmft.features.encoders.base import TABLE
from sgmft.models.fusions import FUSIONS
from sgmft.models.registry import DEFAULT, METHODS, get_method

ON_ENCODERS = (DEFAULT, "linear-probe")  # methods by which encoders are compared
OURS = Path(__file__).with_name("rows.toml")


@dataclass(frozen=True)
class Row:
    """One system or variant, as every table that shows it runs it."""

    key: str  # its name, as `--methods` takes it
    title: str  # as tables show it
    # the next six as `SemanticLocator` takes them
    method: str = DEFAULT
    preset: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    cleaning: str | None = None
    patch_grid: int | None = None
    encoder: str | None = None  # None is the comparison's
    attributes: bool = True  # whether other columns are read, where the comparison names some
    like: str | None = None  # the row whose tuned setting it uses; None has trials of its own
    note: str = ""  # what a reader must know
    table: str = "1"  # that shows it, if none lists it


@dataclass(frozen=True)
class TablePlan:
    """A table, or a figure with a panel of each row's fused representations."""

    number: str
    title: str
    about: str = ""
    rows: Sequence[str] = ()
    reference: str = DEFAULT  # the row that the others are tested against
    paper: Mapping[str, float] = field(default_factory=dict)  # printed accuracy of rows, in percent


class Catalogue(NamedTuple):
    """All there could be, by key or number."""

    rows: dict[str, Row]
    tables: dict[str, TablePlan]
    figures: dict[str, TablePlan]


_PARTS: dict[str, Any] = {"rows": Row, "tables": TablePlan, "figures": TablePlan}
_VALUES = {  # of keys in a file; others have texts
    "settings": (dict, "settings by name"),
    "paper": (dict, "percentages by row"),
    "rows": (list, "a list of rows"),
    "patch_grid": (int, "a whole number"),
    "attributes": (bool, "true or false"),
}


def read_catalogue(encoders: Sequence[str] = (), file: str | Path | None = None) -> Catalogue:
    """Return what `rows.toml`, a user's file, all methods, fusion modules and `encoders` give."""
    on = [(name, METHODS[x]) for name in encoders for x in ON_ENCODERS]
    made = [
        *(Row(x, METHODS[x].title, x, note=METHODS[x].note) for x in METHODS if x != "sgmft"),
        *(Row(x, x, "sgmft", "tokens", {"fusion": x}, table="3") for x in FUSIONS),
        *(Row(f"{x.name}@{e}", f"{e}: {x.title}", x.name, encoder=e, table="6") for e, x in on),
    ]
    known = Catalogue({row.key: row for row in made if row.key not in ("sfm", "sum")}, {}, {})
    if on:
        about = "The default and the linear probe on each encoder's features, on the same posts."
        known.tables["6"] = TablePlan("6", "Encoders", about, reference=f"{DEFAULT}@{encoders[0]}")
    for path in [OURS] if file is None else [OURS, Path(file)]:
        _read(path, known)
    listed = {key for table in known.tables.values() for key in table.rows}
    for key, row in known.rows.items():
        if key not in listed:
            check_name(row.table, known.tables, f"Row {key}: there is no table")
            table = known.tables[row.table]
            known.tables[row.table] = replace(table, rows=[*table.rows, key])
    return known._replace(tables=dict(sorted(known.tables.items())))


def _read(path: Path, known: Catalogue) -> None:
    with raising(f"The rows in {path} cannot be read: {{error}}.", OSError, ValueError):
        parts = tomllib.loads(path.read_text("utf-8"))
    added = []
    for part, entries in parts.items():
        check_name(part, _PARTS, f"{path} has no part")
        for key, values in entries.items() if isinstance(entries, dict) else ((entries, None),):
            where = f"{path}, {part[:-1]} {key}"
            if not isinstance(values, dict):
                raise SgmftError(f"{where}: begin it with [{part}.NAME].")
            for name, value in values.items():
                check_name(name, list(_PARTS[part].__annotations__)[1:], f"{where} has no key")
                kind, words = _VALUES.get(name, (str, "a text"))
                if not isinstance(value, kind):
                    raise SgmftError(f"{where}: {name} must be {words}, not {value!r}.")
            getattr(known, part)[key] = made = _PARTS[part](key, **{"title": key, **values})
            added.append((where, made))
    for where, made in added:
        with raising(f"{where}: {{error}}", SgmftError):
            _check(made, known)


def _check(made: Row | TablePlan, known: Catalogue) -> None:
    if isinstance(made, Row):
        method = get_method(made.method)
        method.preset(made.preset, made.settings)
        method.pick_encoder(made.encoder)
        get_cleaning(made.cleaning or "light")
        keys = [made.like] if made.like else []
    else:
        keys = [*made.rows, made.reference]
    for key in keys:
        check_name(key, known.rows, "There is no row")
    if isinstance(made, Row) and made.like and known.rows[made.like].like is not None:
        raise SgmftError(f"like: {made.like!r} has no trials of its own; name a row that has.")


FACTORS = (1.0, 3.0, 1 / 3, 10.0, 0.1, 30.0, 1 / 30)  # of the learning rate, trial by trial


@dataclass(frozen=True)
class ComparisonPlan:
    """The systems and tables of a comparison, and how thoroughly they are compared."""

    tables: Sequence[TablePlan]
    figures: Sequence[TablePlan]
    known: Mapping[str, Row]  # every row there could be, by key
    attributes: Sequence[str] = ()  # other columns, which methods that can read
    encoder: str = "compact"  # whose features the systems work on
    seeds: int = 5  # S; runs use seeds 0 to S - 1, trials seed 0
    trials: int = 3  # values of its tuned setting that each system tries on held-out posts
    search: bool = False  # whether these are of several settings, as `runs.suggest` finds them
    epochs: int | None = None  # at most, whatever a preset says; None leaves the presets'
    workers: int = 1  # processes
    device: str | None = None  # as in `sgmft.training.trainer.train`
    finished_only: bool = False  # run nothing, and show what is finished

    def rows(self) -> list[Row]:
        """Return every row that must run, also references and those whose setting others take."""
        keys = [key for table in self.tables for key in (*table.rows, table.reference)]
        keys += [key for figure in self.figures for key in figure.rows]
        keys += [like for key in keys if (like := self.known[key].like) is not None]
        return [self.known[key] for key in dict.fromkeys(keys)]


def make_plan(
    table: str,
    figure: str,
    methods: str | None = None,
    encoders: Sequence[str] = (),
    file: str | Path | None = None,  # a user's own rows
    balanced: bool = False,  # whether rows weigh each label by its inverse frequency
    **options: Any,
) -> ComparisonPlan:
    """Return a plan from numbers of tables and figures and keys of rows, with commas between."""
    if options.get("trials", 0) > len(FACTORS) and not options.get("search"):
        raise SgmftError(f"More than {len(FACTORS)} trials are for --search: add it, or try fewer.")
    if encoders and "6" not in table:
        raise SgmftError("Encoders are compared in Table 6: name it in --tables, too.")
    for name in encoders:
        METHODS[DEFAULT].pick_encoder(name)
    rows, every_table, every_figure = read_catalogue(encoders, file)
    for key, row in rows.items() if balanced else ():
        if not get_method(row.method).prompts:
            rows[key] = replace(row, settings={"class_weights": True, **row.settings})
    keys = list(rows) if methods is None else _names(methods, rows, "method to compare")
    if not options.get("attributes"):
        keys = [key for key in keys if rows[key].attributes]
    if str(options.get("encoder")).startswith(TABLE):
        bad = list[str]()
        for key, row in rows.items():  # that need more than one vector of each text and picture
            method = get_method(row.method)
            tokens = method.uses_tokens(method.preset(row.preset, row.settings))
            bad += [key] if tokens or method.encoder or method.prompts or row.patch_grid else []
        keys = [key for key in keys if key not in bad]
        warn(f"Left out, for a table has no vectors of words: {', '.join(bad)}.", SgmftNotice)

    def chosen(numbers: str, known: Mapping[str, Any], what: str) -> list[Any]:
        plans = [known[number] for number in _names(numbers, known, what)]
        some = [plan for plan in plans if not {*keys}.isdisjoint(plan.rows)]
        # what the others are tested against is shown, too
        return [replace(x, rows=[y for y in x.rows if y in keys or y == x.reference]) for x in some]

    if not (tables := chosen(table, every_table, "table")):
        if not (numbers := _names(table, every_table, "table")):
            check_name(table, every_table, "There is no table")
        own = ", ".join(dict.fromkeys(key for x in numbers for key in every_table[x].rows))
        raise SgmftError(f"Table {table} has none of the rows {methods}; it has {own}.")
    return ComparisonPlan(tables, chosen(figure, every_figure, "figure"), rows, **options)


def _names(text: str, known: Mapping[str, Any], what: str) -> list[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        if name == "sgmft" and name not in known and DEFAULT in known:
            raise SgmftError(TEXTS["old row"], default=DEFAULT)
        check_name(name, known, f"There is no {what}")
    return names
