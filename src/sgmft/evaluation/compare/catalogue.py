"""The rows, tables and figures a comparison knows: the paper's, and ours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sgmft.errors import SgmftError, SgmftNotice, warn
from sgmft.features.encoders.base import TABLE
from sgmft.models.fusions import FUSIONS
from sgmft.models.registry import DEFAULT, METHODS, get_method

REFERENCE = DEFAULT  # the row that systems are tested against
ON_ENCODERS = (DEFAULT, "linear-probe")  # methods by which encoders are compared


@dataclass(frozen=True)
class Row:
    """One system or variant, as every table that shows it runs it."""

    key: str  # its name, as `--methods` takes it
    title: str  # as tables show it
    # the next six as `SemanticLocator` takes them
    method: str = "sgmft"
    preset: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    cleaning: str | None = None
    patch_grid: int | None = None
    encoder: str | None = None  # None is the comparison's
    like: str | None = None  # the row whose tuned setting it uses; None has trials of its own
    note: str = ""  # what a reader must know


class TablePlan(NamedTuple):
    """A table."""

    number: str
    title: str
    about: str
    rows: Mapping[str, float | None]  # key -> accuracy in percent, where the paper prints one
    reference: str = REFERENCE  # the row that the others are tested against


class FigurePlan(NamedTuple):
    """A figure: the rows whose fused representations its panels show."""

    number: str
    title: str
    rows: Sequence[str]


# accuracy in percent, as the paper prints it
PAPER_TABLE_1 = {
    "mplug": 84.56,
    "unis-mmc": 86.62,
    "bridgetower": 86.59,
    "balance-mla": 85.24,
    "feature-level-cnn": 86.25,
    "sgmft-paper": 87.29,
}

PAPER_TABLE_2 = {"word-average": 78.23, "clip": 84.91, "clip-sfm": 85.74, "clip-sim": 86.94}
FUSION_ROWS = {
    "asymmetric-co-attention": ("Asymmetric co-attention", 86.32),
    "merge-attention": ("Merge-attention", 86.35),
    "co-attention": ("Co-attention", 86.47),
}

FULL = "sgmft-tokens"  # the network that the paper's ablations change

FIGURES = {
    "6": FigurePlan("6", "Fused representations in the module ablation", (*PAPER_TABLE_2, FULL)),
    "8": FigurePlan("8", "Fused representations by fusion module", (*FUSION_ROWS, FULL)),
    "9": FigurePlan("9", "Fused representations by guided modality", ("image-wise", FULL)),
}

_INSIDE = "No trials: chooses its penalties by cross-validation of the training posts."
_TOKENS: dict[str, Any] = {"preset": "tokens", "like": FULL}
_DEFAULT: dict[str, Any] = {"method": DEFAULT, "note": _INSIDE}
_CHANGED: dict[str, Any] = {"preset": "elements", "like": "elements"}  # with one choice changed


def rows(encoders: Sequence[str] = ()) -> dict[str, Row]:
    """Return every row by key; systems and fusion modules that a user registered among them.

    Of `encoders` there is a row for each, of the default and of the linear probe.
    """
    found = [
        Row(FULL, "SG-MFT (tokens)", preset="tokens"),
        Row("sgmft-paper", "SG-MFT (as printed)", preset="paper", note="No trials: as printed."),
        *(
            Row(name, x.title, name, note=f"{x.note} {_INSIDE}" if name == DEFAULT else x.note)
            for name, x in METHODS.items()
            if name != "sgmft"
        ),
        Row("clip", "Encoder", settings={"sim": False, "fusion": "sum"}, **_TOKENS),
        Row("clip-sfm", "Encoder + SFM", settings={"sim": False}, **_TOKENS),
        Row("clip-sim", "Encoder + SIM", settings={"fusion": "sum"}, **_TOKENS),
        *(
            Row(name, FUSION_ROWS.get(name, (name,))[0], preset="tokens", settings={"fusion": name})
            for name in _fusions()
        ),
        Row("image-wise", "Image-wise", settings={"guided": "image"}, **_TOKENS),
        Row("default-gate", "… one gate for all posts", settings={"gate": "constant"}, **_DEFAULT),
        Row("default-power", "… a product of the modalities", settings={"power": 0.0}, **_DEFAULT),
        Row("default-joint", "… no joint expert", settings={"joint": False}, **_DEFAULT),
        Row("default-lexical", "… no n-grams", settings={"lexical": False}, **_DEFAULT),
        Row("cleaning-paper", "… the paper's cleaning", DEFAULT, cleaning="paper", like=DEFAULT),
        Row("cleaning-none", "… no cleaning", DEFAULT, cleaning="none", like=DEFAULT),
        Row("elements", "SG-MFT (elements)", preset="elements"),
        Row("elements-tokens", "… tokens view", settings={"view": "tokens"}, **_CHANGED),
        Row("elements-w4", "… elements 4 wide", settings={"element_width": 4}, **_CHANGED),
        Row("elements-w16", "… elements 16 wide", settings={"element_width": 16}, **_CHANGED),
        Row("elements-softmax", "… softmax gate", settings={"gate": "softmax"}, **_CHANGED),
        Row("elements-temperature-1", "… temperature 1", settings={"temperature": 1.0}, **_CHANGED),
        Row("elements-unscaled", "… features as encoded", settings={"scale": "none"}, **_CHANGED),
        Row("grid-2", "Tokens, 2 × 2 regions", patch_grid=2, **_TOKENS),
        Row("grid-7", "Tokens, 7 × 7 regions", patch_grid=7, **_TOKENS),
        *(
            Row(f"{x}@{name}", f"{name}: {METHODS[x].title}", x, encoder=name, note=_INSIDE)
            for name in encoders
            for x in ON_ENCODERS
        ),
    ]
    return {row.key: row for row in found}


def tables(encoders: Sequence[str] = ()) -> dict[str, TablePlan]:
    """Return the tables by number: the paper's four, ours, and that of the encoders, if any."""
    apart = {"word-average", "sgmft", DEFAULT, *PAPER_TABLE_1}
    compared = {key: paper for key, paper in PAPER_TABLE_1.items() if key != "sgmft-paper"}
    systems = compared | dict.fromkeys(name for name in METHODS if name not in apart)
    ours = [x for x in rows() if x.startswith(("default-", "cleaning-", "elements", "grid-"))]
    ours.insert(ours.index("grid-7"), FULL)
    plans = (
        TablePlan(
            "1",
            "Systems",
            "The compared systems, and what practitioners try first.",
            systems | {FULL: None, "sgmft-paper": PAPER_TABLE_1["sgmft-paper"], REFERENCE: None},
        ),
        TablePlan(
            "2",
            "Modules",
            "SG-MFT (tokens) with and without its modules; settings like the full model's. The "
            "encoder stands where the paper has CLIP.",
            {**PAPER_TABLE_2, FULL: 87.29},
            FULL,
        ),
        TablePlan(
            "3",
            "Fusion modules",
            "SG-MFT (tokens) with another fusion module in the place of its SFM, each with "
            "trials of its own.",
            {name: FUSION_ROWS.get(name, (name, None))[1] for name in _fusions()} | {FULL: 87.29},
            FULL,
        ),
        TablePlan(
            "4",
            "Guided modality",
            "Which modality's feed-forward block is guided, in SG-MFT (tokens); settings like the "
            "full model's.",
            {"image-wise": 86.88, FULL: 87.29},
            FULL,
        ),
        TablePlan(
            "5",
            "Our choices",
            "Similarity-gated experts, the default, without single parts, and with other text "
            "cleaning; SG-MFT (elements), the paper's network with our settings, and single "
            "choices changed in it; the number of regions in SG-MFT (tokens).",
            dict.fromkeys([REFERENCE, *ours]),
        ),
    )
    on_each = [f"{x}@{name}" for name in encoders for x in ON_ENCODERS]
    last = TablePlan(
        "6",
        "Encoders",
        "The default and the linear probe on the features of each encoder, on the same posts.",
        dict.fromkeys(on_each),
        *on_each[:1],
    )
    return {plan.number: plan for plan in (*plans, *[last] * bool(encoders))}


def _fusions() -> list[str]:
    return [name for name in FUSIONS if name not in ("sfm", "sum")]


@dataclass(frozen=True)
class ComparisonPlan:
    """The systems and tables of a comparison, and how thoroughly they are compared."""

    tables: Sequence[TablePlan]
    figures: Sequence[FigurePlan]
    encoder: str = "compact"  # whose features the systems work on
    encoders: Sequence[str] = ()  # to be compared with each other
    seeds: int = 5  # S; runs use seeds 0 to S - 1, trials seed 0
    trials: int = 3  # values of its tuned setting that each system tries on held-out posts
    epochs: int | None = None  # at most, whatever a preset says; None leaves the presets'
    workers: int = 1  # processes
    device: str | None = None  # as in `sgmft.training.trainer.train`
    finished_only: bool = False  # run nothing, and show what is finished

    @property
    def known(self) -> dict[str, Row]:
        """Every row there could be, by key."""
        return rows(self.encoders)

    def rows(self) -> list[Row]:
        """Return every row that must run, also references and those whose setting others take."""
        known = self.known
        keys = [key for table in self.tables for key in (*table.rows, table.reference)]
        keys += [key for figure in self.figures for key in figure.rows]
        keys += [like for key in keys if (like := known[key].like) is not None]
        return [known[key] for key in dict.fromkeys(keys)]


def make_plan(
    table: str,
    figure: str,
    methods: str | None = None,
    encoders: Sequence[str] = (),
    **options: Any,
) -> ComparisonPlan:
    """Return a plan from numbers of tables and figures and keys of rows, with commas between.

    Only those rows are shown, the reference always runs; `options` are of `ComparisonPlan`.
    """
    keys = None if methods is None else _names(methods, rows(), "method to compare")
    if str(options.get("encoder")).startswith(TABLE):
        bad = [key for key, row in rows().items() if _needs_encoder(row)]
        keys = [key for key in keys or rows() if key not in bad]
        warn(f"Left out, for a table has no vectors of words: {', '.join(bad)}.", SgmftNotice)
    for name in encoders:
        METHODS[DEFAULT].pick_encoder(name)
    known = tables(encoders)
    plans = [known[number] for number in _names(table, known, "table")]
    figures = [FIGURES[number] for number in _names(figure, FIGURES, "figure")]
    if keys is not None:
        plans = [x._replace(rows={k: x.rows[k] for k in x.rows if k in keys}) for x in plans]
        figures = [x._replace(rows=[k for k in x.rows if k in keys]) for x in figures]
    plans, figures = [x for x in plans if x.rows], [x for x in figures if x.rows]
    if not plans:
        raise SgmftError(f"Table {table} has none of the rows {methods}: choose other tables.")
    return ComparisonPlan(plans, figures, encoders=encoders, **options)


def _needs_encoder(row: Row) -> bool:
    """Return whether a row needs more than one vector of each text and picture."""
    method = get_method(row.method)
    tokens = method.uses_tokens(method.preset(row.preset, row.settings))
    return bool(tokens or method.encoder or method.prompts or row.patch_grid)


def _names(text: str, known: Mapping[str, Any], what: str) -> list[str]:
    """Return names separated by commas, each of them known."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        if name == "sgmft" and name not in known and DEFAULT in known:
            raise SgmftError(
                f"The row 'sgmft' is now called {DEFAULT!r}; the paper's network has the rows "
                "sgmft-tokens, sgmft-paper and elements."
            )
        if name not in known:
            raise SgmftError(f"There is no {what} {name!r}: use {', '.join(known)}.")
    return names
