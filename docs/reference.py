"""Write docs/commands.md, settings.md, http-api.md, python.md from the code: `docs/reference.py`.

The options come from the command line itself, the settings from the dataclasses, the rest from
docstrings. `tests/test_readme.py` compares the pages with what this would write.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import Any, Literal

import typer

import sgmft.mlflow
from sgmft import Abstention, Post, SemanticLocator, read_posts, to_posts
from sgmft.cli.main import app
from sgmft.data.posts import Attachment
from sgmft.data.tables import Columns, iter_posts, open_writer
from sgmft.errors import SgmftError
from sgmft.evaluation.explain.explanation import Explanation
from sgmft.locator.estimator import Estimator
from sgmft.locator.loading import load_predictor
from sgmft.locator.onnx.export import export_model
from sgmft.locator.onnx.locator import OnnxLocator
from sgmft.locator.prediction import Prediction, Predictor
from sgmft.models.method import Method
from sgmft.models.presets import TrainConfig
from sgmft.models.registry import METHODS, get_method
from sgmft.serving.app import create_app
from sgmft.serving.problems import PROBLEMS, Limits
from sgmft.training.finetune.settings import Tuning

FOLDER = Path(__file__).parent
GENERATED = "<!-- Written by `python docs/reference.py`: change the code, not this page. -->"

COMMANDS = f"""# Commands

{GENERATED}

Every command takes `--help`. Messages go to standard error and results to the place named by \
`-o`. Exit codes: 0 is success, also where some rows could not be used; 2 a mistake that one \
sentence explains; 3 that no row at all could be used; 130 and 143 mean stopped by Ctrl-C or \
SIGTERM. To continue a stopped command, run it again.

`sgmft --plugin FILE.py COMMAND ...` first loads a Python file that registers a fusion module, a \
method ([compare.md](compare.md#your-own-fusion-module)) or an encoder of yours \
([encoders.md](encoders.md#list-and-check)). Repeat it for several files.
"""

SETTINGS = f"""# Settings

{GENERATED}

Change a setting with `--set NAME=VALUE` of `sgmft train`, or with `settings={{...}}` of \
`SemanticLocator`. Write a list as numbers separated by commas. `(*)` marks a default that the \
paper leaves open. What the methods are: [method.md](method.md).
"""

HTTP = f"""# HTTP API

{GENERATED}

What `sgmft serve` answers, in words; for machines, `GET /openapi.json` has the same. How to send \
a request, with examples, limits and keys: [serving.md](serving.md). What may change: \
[stability.md](stability.md).

A field is optional where a default is given, and responses always have all of theirs. A request \
that cannot be used gets a problem document, with the status and `type` that the last table lists.
"""

PYTHON = f"""# Python

{GENERATED}

The five names most programs need come from the package itself; the others from the module given \
with each. Posts go in, predictions come out, in the same order.

A saved model is a folder. `locator.save_pretrained(folder)`, \
`SemanticLocator.from_pretrained(folder_or_hub_name)` and `locator.push_to_hub(name)` write, read \
and publish it. The HTTP API is described in [serving.md](serving.md), with a Python example, and \
field by field in [http-api.md](http-api.md).

## Posts of any kind

Wherever `posts` are asked for, give what you have, one or many: a DataFrame of pandas or \
polars, an Arrow table, a `datasets.Dataset`, dicts, plain texts, pictures. \
Columns are found by the names that tables have ([data.md](data.md)), or named by `columns`; \
pictures are paths from `root`, or pictures.

```python
import pandas as pd
from sgmft import SemanticLocator, to_posts

frame = pd.DataFrame({{"tweet": ["做完饭了", "下课了"] * 4, "y": ["Home", "School"] * 4}})
locator = SemanticLocator(columns={{"text": "tweet", "label": "y"}}).fit(frame)

locator.predict(frame)          # array(["Home", "School", ...]); None where a row cannot be used
locator.predict_frame(frame)    # a frame of the same kind and index: label, probability, error, ...
locator.predict(["做饭", "上课"])  # texts; a pair such as ("做饭", "kitchen.jpg") has a picture too
to_posts(frame, columns={{"text": "tweet"}})[0].text
```

A text is the path of a picture where it is one word that ends like one (`a.jpg`), or a file is \
there. A list of `Post`s gives a list of labels, anything else an array, as scikit-learn has it. \
Posts that cannot be read stay in their place, with an `error`. `to_posts(frame, root=False)` \
follows no path, as is right where strangers send the posts.

## With scikit-learn

`SemanticLocator` is a classifier: `clone`, `cross_val_score`, `GridSearchCV`, pipelines and \
`CalibratedClassifierCV` take it. `y` may stand in for the labels of the posts, and comes back \
as it was given. Each post is encoded once, since features are kept in your cache \
(`features=None` keeps none).

```python
from sklearn.model_selection import GridSearchCV

grid = {{"method": ["gated-experts", "linear-probe"], "cleaning": ["light", "none"]}}
search = GridSearchCV(locator, grid, cv=2).fit(frame, frame["y"])
search.best_params_, search.predict(frame)
```

Settings are tried as dicts: `{{"settings": [{{"epochs": 5}}, {{"epochs": 9}}]}}`. `score` counts \
a post that cannot be read as wrong; metrics of scikit-learn refuse its label None, so leave such \
rows out first: those where `predict_frame(frame)["error"]` says why.

`pickle`, `cloudpickle` and `joblib` keep a model in its saved form: the files that \
`save_pretrained` writes, in which there is no pickle. Only unpickle what you trust; folders are \
safe to exchange. The parameters are loaded with it, and `y` too, which a folder keeps as text.

## With MLflow

`pip install 'sgmft[mlflow]'` brings mlflow-skinny, which logs to a tracking server, loads and \
serves; MLflow's own database and pages need `mlflow`. What is logged is the saved form, without \
pickle.

```python
import mlflow
import sgmft.mlflow

with mlflow.start_run():
    logged = sgmft.mlflow.log_model(locator, name="place")

model = mlflow.pyfunc.load_model(logged.model_uri)
model.predict(pd.DataFrame({{"text": ["做完饭了"]}}))  # the columns of `predict_frame`

folder = mlflow.artifacts.download_artifacts(logged.model_uri)
SemanticLocator.from_pretrained(f"{{folder}}/data/model")  # the locator itself
```

MLflow's own server takes a column `text`, a column `image`, or `images` with a list for each row, \
a column `time`, and the columns that `attributes` named; it leaves out others. Pictures \
are in the request, as `data:` addresses or Base64. Paths \
and web addresses are not followed, neither there nor in `predict` of a loaded \
model; they are a row's `error`, or its `warning` beside a text.

```bash
mlflow models serve -m models:/m-0b13974c187b4f0dad40d19ea4a10bd6 --env-manager local -p 5001
curl localhost:5001/invocations -H 'Content-Type: application/json' \\
  -d '{{"dataframe_records": [{{"text": "做完饭了", "images": ["data:image/jpeg;base64,..."]}}]}}'
```

A folder may be logged, too: `log_model("exported/")` of what `sgmft export` wrote, which serves \
any network without PyTorch and with the encoder inside. A locator's encoder is not in its files: \
one from the hub is found there again. `python examples/from_python.py tools/` does \
all of this page, in a folder.
"""

SECTIONS: dict[str, tuple[Any, ...]] = {
    "Locator": (SemanticLocator,),
    "Posts and tables": (Post, Attachment, to_posts, read_posts, iter_posts, Columns, open_writer),
    "Predictions": (Prediction, Abstention, Explanation),
    "Without PyTorch": (export_model, OnnxLocator, load_predictor),
    "MLflow": (sgmft.mlflow.log_model, sgmft.mlflow.save_model),
    "Methods and fine-tuning": (get_method, Method, Tuning),
    "Errors": (SgmftError,),
}
WITH_METHODS = {
    SemanticLocator: (SemanticLocator, Predictor, Estimator),
    OnnxLocator: (OnnxLocator,),
}


def http() -> str:
    """The addresses, fields and problems of the HTTP API, as Markdown."""
    model = SimpleNamespace(labels=(), traits={})
    document = create_app(SimpleNamespace(model=model, limits=Limits()), "key").openapi()  # type: ignore[arg-type]
    schemas, pages, wanted = document["components"]["schemas"], [HTTP, "## Addresses\n"], [""]
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            answers = [x for x in described["responses"] if x != "200"]
            pages.append(f"### {method.upper()} {path}\n\n{described['description']}\n")
            for title, part in (
                ("Request", described.get("requestBody")),
                ("Response", described["responses"]["200"]),
            ):
                types = (part or {}).get("content", {})
                found = re.findall(r"schemas/(\w+)", str(types))
                names = " or ".join(f"[{x}](#{x.lower()})" for x in dict.fromkeys(found))
                wanted += found
                if types:
                    kinds = ", ".join(f"`{x}`" for x in types)
                    pages.append(f"- {title}: {kinds}{': ' * bool(names)}{names}")
            key = "the key, where there is one" if "security" in described else "open to all"
            pages.append(f"- Access: {key}")
            if answers:
                pages.append(f"- Problems: {', '.join(answers)}")
            pages.append("")
    pages.append("## Objects\n")
    for name in wanted:  # grows while it is read
        wanted += [
            x for x in re.findall(r"schemas/(\w+)", str(schemas.get(name))) if x not in wanted
        ]
    for name in sorted({*wanted} & {*schemas}):
        schema = schemas[name]
        pages.append(f"### {name}\n\n{schema['description']}\n")
        header, given = ("field", "type", "meaning"), "Response" not in name
        rows = [
            (
                f"`{field}`",
                _json_type(x),
                *([_json_default(field, x, schema)] if given else []),
                x.get("description", ""),
            )
            for field, x in schema["properties"].items()
        ]
        pages.append(_table((*header[:2], "default", "meaning") if given else header, rows))
    kinds = [(f"`{name}`", str(x.status), x.title, x.meaning) for name, x in PROBLEMS.items()]
    pages += ["## Problems\n", _table(("`/problems/` and", "status", "title", "meaning"), kinds)]
    return "\n".join(pages)


def _json_type(schema: dict[str, Any]) -> str:
    """A JSON schema in words: `string`, `list of number or null`, a link to an object."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if choices := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(map(_json_type, choices)))
    if schema.get("type") == "array":
        return f"list of {_json_type(schema['items'])}" if "items" in schema else "list"
    if isinstance(values := schema.get("additionalProperties"), dict):
        return f"object of {_json_type(values)}"
    low, high = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    return f"{schema['type']} between {low} and {high}" if low is not None else schema["type"]


def _json_default(field: str, schema: dict[str, Any], owner: dict[str, Any]) -> str:
    if field in owner.get("required", ()):
        return "required"
    return f"`{json.dumps(schema.get('default'))}`"


def python() -> str:
    """The public classes and functions with their signatures and docstrings, as Markdown."""
    pages = [PYTHON]
    for title, things in SECTIONS.items():
        pages.append(f"## {title}\n")
        for thing in things:
            public = thing in (Abstention, Post, SemanticLocator, read_posts, to_posts)
            module = "sgmft" if public else thing.__module__
            pages.append(f"### {thing.__name__}\n")
            pages.append(f"```python\nfrom {module} import {thing.__name__}\n```\n")
            pages.append(_described(thing))
            for name in _methods(thing):
                pages.append(f"#### {thing.__name__}.{name}\n\n{_described(getattr(thing, name))}")
    return "\n".join(pages)


def commands() -> str:
    """Every command with its arguments and options, as Markdown."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    pages = [COMMANDS]
    for command in group.commands.values():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        kinds = typing.get_type_hints(command.callback)
        names = [a.name.upper() for a in arguments]
        usage = " ".join(
            n if a.required else f"[{n}]" for n, a in zip(names, arguments, strict=True)
        )
        pages.append(f"## {command.name}\n\n{inspect.cleandoc(command.help or '')}\n")
        pages.append(f"```text\nsgmft {command.name} {usage} [OPTIONS]\n```\n")
        rows = [(f"`{n}`", "", a.help or "") for n, a in zip(names, arguments, strict=True)]
        rows += [(_flags(o, kinds[o.name]), _default(o), _help(o)) for o in options]
        pages.append(_table(("argument or option", "default", "meaning"), rows))
    return "\n".join(pages)


def settings() -> str:
    """Every setting of every method, of training and of fine-tuning, as Markdown."""
    pages = [SETTINGS]
    for method in METHODS.values():
        pages.append(f"## {method.name}\n\n{method.title}, {method.source}.\n")
        names = list(method.presets)
        config = method.config
        kinds = method.setting_kinds()
        if not kinds:
            pages.append("No settings beside `seed`.\n")
            continue
        known = {f.name: f.default for f in dataclasses.fields(config)}
        rows = []
        for name, kind in kinds.items():
            values = [p.model.get(name, known[name]) for p in method.presets.values()]
            rows.append((f"`{name}`", _kind(kind), *_values(values), _meaning(config, name)))
        columns = names if len(names) > 1 else ["default"]
        pages.append(_table(("setting", "values", *columns, "meaning"), rows))
    pages.append(
        "## Training in epochs\n\nFor every method but the closed-form ones (`gated-experts`, the "
        "probes, late averaging, zero-shot), which have the setting `seed` only. The first column "
        "of defaults is that of the compared systems.\n"
    )
    presets = {"compared systems": METHODS["mplug"].preset(), **METHODS["sgmft"].presets}
    kinds = typing.get_type_hints(TrainConfig)
    rows = []
    for field in dataclasses.fields(TrainConfig):
        values = [getattr(p.train, field.name) for p in presets.values()]
        about = _meaning(TrainConfig, field.name)
        rows.append((f"`{field.name}`", _kind(kinds[field.name]), *_values(values), about))
    pages.append(_table(("setting", "values", *presets, "meaning"), rows))
    pages.append(
        "A preset also decides the share of posts held out, whether the network is trained again "
        "on all posts once they have chosen the epoch, and the cleaning of texts.\n"
    )
    rows = [
        (f"`{name}`", f"{p.val_size:g}", "yes" if p.refit else "no", p.cleaning)
        for name, p in presets.items()
    ]
    pages.append(_table(("preset", "held out", "trained again", "cleaning"), rows))
    pages.append(
        "## Fine-tuning\n\nOf `--tune lora` and `--tune full` ([fine-tuning.md](fine-tuning.md)): "
        "`--set tune.NAME=VALUE`, or `Tuning(NAME=VALUE)` in Python.\n"
    )
    kinds = typing.get_type_hints(Tuning)
    rows = [
        (f"`{f.name}`", _kind(kinds[f.name]), *_values([f.default]), _meaning(Tuning, f.name))
        for f in dataclasses.fields(Tuning)
        if f.name != "kind"
    ]
    pages.append(_table(("setting", "values", "default", "meaning"), rows))
    return "\n".join(pages)


def _flags(option: Any, kind: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if "bool" in str(kind):
        return names
    words = {"int": "NUMBER", "float": "NUMBER", "str": "TEXT"}
    return f"{names} {option.metavar or next(words[w] for w in words if w in str(kind))}"


def _help(option: Any) -> str:
    text = (option.help or "").replace("\\[", "[")
    return f"{text} Or the variable `{option.envvar}`." if option.envvar else text


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.default is None or option.default == []:
        return ""
    if isinstance(option.default, bool):
        return "on" if option.default else "off"
    return f"`{option.default}`"


def _values(values: list[Any]) -> Iterator[str]:
    for value in values:
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        yield {"True": "true", "False": "false"}.get(text, text)


def _kind(kind: Any) -> str:
    if typing.get_origin(kind) in (typing.Union, UnionType):
        return " or ".join(_kind(choice) for choice in typing.get_args(kind))
    if typing.get_origin(kind) is Literal:
        return ", ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        return "whole numbers"
    names = {int: "whole number", float: "number", bool: "true, false", str: "name"}
    return "none" if kind is type(None) else names[kind]


def _methods(thing: Any) -> list[str]:
    """The public methods that a class and those of its bases that count define, in their order."""
    found = {name: None for owner in WITH_METHODS.get(thing, ()) for name in vars(owner)}
    return [name for name in found if name[0] != "_" and callable(getattr(thing, name))]


def _described(thing: Any) -> str:
    """Signature, docstring and fields; the docstring's Args, Raises and others become lists."""
    lines = []
    if thing not in (OnnxLocator, SgmftError):  # which nobody makes by hand
        signature = re.sub(r"'?(?:[a-z_]+\.)+(\w+)'?", r"\1", _signature(thing))
        lines.append(f"```text\n{thing.__name__}{signature}\n```\n")
    parts = (inspect.getdoc(thing) or "").replace("``", "`").split("\n\n")
    if fields := list(_fields(thing)) if inspect.isclass(thing) else []:
        about = "".join(f"    {', '.join(names)}: {text}\n" for names, text in fields)
        at = len(parts) - parts[-1].startswith("Raises:")
        parts.insert(at, f"Attributes:\n{about}")
    for part in parts:
        name, _, items = part.partition(":\n")
        if name in ("Args", "Attributes", "Raises", "Returns", "Yields"):
            lines.append(f"{name}:\n")
            if name in ("Returns", "Yields"):
                lines.append(f"- {' '.join(items.split())}")
            else:
                lines += [f"- `{', '.join(names)}`: {text}" for names, text in _items(items)]
            lines.append("")
        else:
            lines += [" ".join(item.split()) for item in re.split(r"\n(?=- )", part)]
            lines.append("")
    return "\n".join(lines)


def _signature(thing: Any) -> str:
    found = inspect.signature(thing)
    kept = [p for name, p in found.parameters.items() if name not in ("self", "cls")]
    plain = found.replace(parameters=kept, return_annotation=inspect.Signature.empty)
    short = [p.replace(annotation=inspect.Parameter.empty) for p in plain.parameters.values()]
    return str(plain.replace(parameters=short))


def _meaning(config: type, name: str) -> str:
    """The sentence about a field of a class or of a parent."""
    for parent in config.__mro__[:-1]:
        for names, text in _fields(parent):
            if name in names:
                return text[0].upper() + text[1:] if text[:2].isalpha() else text
    raise KeyError(f"{config.__name__}.{name} is described nowhere")


def _fields(config: type) -> Iterator[tuple[list[str], str]]:
    """Fields and the comments behind them, or in lines before them; one for all in a row alike."""
    found: list[tuple[str, str]] = []
    before: list[str] = []
    for line in inspect.getsource(config).splitlines():
        code, _, comment = line.partition("# ")
        field = re.match(r"    (\w+): ", code)
        if field and (before or comment):
            found.append((" ".join([*before, comment]).strip().rstrip("."), field[1]))
        before = [*before, comment] if comment and not code.strip() else []
    for text, alike in groupby(found, itemgetter(0)):
        yield [name for _, name in alike], f"{text}."


def _items(section: str) -> Iterator[tuple[list[str], str]]:
    for item in re.split(r"\n {4}(?=\S)", "\n" + section)[1:]:
        names, _, text = " ".join(item.split()).partition(": ")
        yield [name.strip() for name in names.split(",")], text


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    cells = ((" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in lines)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"


PAGES = {"commands.md": commands, "settings.md": settings, "http-api.md": http, "python.md": python}

if __name__ == "__main__":
    for page, write in PAGES.items():
        (FOLDER / page).write_text(write(), encoding="utf-8")
