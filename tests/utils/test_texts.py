"""The messages of `errors.toml`: each is used, and filled in with what it names."""

import ast
from pathlib import Path
from string import Formatter

from sgmft import errors

SOURCE = Path(errors.__file__).parent
TREES = [ast.parse(path.read_text("utf-8")) for path in SOURCE.rglob("*.py")]
NODES = [node for tree in TREES for node in ast.walk(tree)]


def name_of(node: ast.AST) -> str:
    """The name of a text, where a node is one, as in TEXTS["no table"]; else ""."""
    if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("TEXTS"):
        return node.slice.value if isinstance(node.slice, ast.Constant) else ""
    return ""


def test_every_text_is_used_and_every_name_is_known():
    strings = {x.value for x in NODES if isinstance(x, ast.Constant) and isinstance(x.value, str)}
    chosen = {f"{role} unread" for role in ("image", "text")}
    assert errors.TEXTS.keys() <= strings | chosen
    assert {name for node in NODES if (name := name_of(node))} <= errors.TEXTS.keys()


def test_texts_are_filled_in_with_all_that_they_name():
    checked = 0
    for call in (x for x in NODES if isinstance(x, ast.Call) and x.args):
        text = errors.TEXTS.get(name_of(call.args[0]))
        if text is None or any(word.arg is None for word in call.keywords):
            continue
        given = {"name"} if call.func.id == "_refusal" else {x.arg for x in call.keywords}
        assert given == {x for _, x, _, _ in Formatter().parse(text) if x}, ast.unparse(call)
        checked += 1
    assert checked > 20
