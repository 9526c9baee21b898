"""Corrections of labels, as the page of `sgmft audit` writes them, applied to posts."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from sgmft.data.posts import Post
from sgmft.data.tables.cells import to_label
from sgmft.data.tables.formats import open_table
from sgmft.errors import SgmftError, SgmftNotice, SgmftWarning, warn

COLUMNS = ("id", "label", "new_label")
# for 00272, spreadsheet programs save 272, or 272.0; all three are 272 here
plain_number = partial(re.compile(r"^0*(\d+)(?:[.,]00?)?$").sub, r"\1")


def apply_fixes(posts: Sequence[Post], path: str | None, strict: bool = False) -> list[Post]:
    """Return posts with the labels of a table of `COLUMNS`; those with an empty `new_label` go.

    A post without an id is named by its place, as `Post.place` has it. A fix is not applied where
    its id may be of no post or of several, where its `label` is not the post's, or where an earlier
    one says otherwise: a warning says so; SgmftError with `strict`, or where none can be applied.
    """
    if path is None:
        return list(posts)
    known, numbers = dict[str, list[int]](), dict[str, list[int]]()
    fixes, refused, restored = dict[int, str](), list[str](), dict[str, str]()
    labels = {post.label for post in posts if post.label is not None}
    for i, post in enumerate(posts):
        known.setdefault(name := post.id or post.place, []).append(i)
        numbers.setdefault(plain_number(name), []).append(i)
    for row in open_table(path).rows:
        cells = {} if row.error else row.values
        try:
            name, old, new = (to_label(cells[x]).strip() for x in COLUMNS)
        except (KeyError, ValueError) as error:
            why = row.error or f"the columns {', '.join(COLUMNS)} are needed, with one text each"
            raise SgmftError(f"{path}, row {row.number}: {why}.") from error
        found = (name[:1] == "0" and known.get(name)) or numbers.get(plain_number(name), [])
        if len(same := [x for x in labels if plain_number(x) == plain_number(new)]) == 1:
            restored[new] = same[0]
            new = same[0]
        if len(found) != 1:
            reason = f"{'several posts have' if found else 'no post has'} id {name}"
            if found != known.get(name, []) or "E+" in name:
                reason += ", as programs shorten ids: import ids as text there"
        elif (own := posts[found[0]].label) is None or plain_number(own) != plain_number(old):
            reason = f"the label of {name} is {own!r}, not {old!r}"
        elif fixes.setdefault(found[0], new) != new:
            reason = f"another row has another label for {name}"
        else:
            restored[name] = posts[found[0]].id or name
            continue
        refused.append(f"row {row.number}: {reason}")
    dropped = sum(not new for new in fixes.values())
    if others := sorted({*fixes.values()} - labels - {""}):
        warn(f"{path}: labels that no post of the table has: {', '.join(others[:5])}.")
    text = f"{path}: {len(fixes) - dropped} labels changed, {dropped} posts left out"
    if changed := [f"{own} for {cell}" for cell, own in restored.items() if own != cell]:
        text = f"{text}; cells are read as they were: {', '.join(changed[:3])}"
    if refused:
        shown = "; ".join([*refused[:3], "…"][: len(refused)])
        why = f"{len(refused)} fixes do not belong to these posts: {shown}"
        if strict or not fixes:
            raise SgmftError(f"{path}: {why}. Give the fixes of the table that is read.")
        text = f"{text}; {why}"
    warn(f"{text}.", SgmftWarning if refused else SgmftNotice)
    kept = [(i, post) for i, post in enumerate(posts) if fixes.get(i) != ""]
    return [replace(x, label=fixes[i], soft=None) if i in fixes else x for i, x in kept]
