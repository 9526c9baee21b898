"""Corrections of labels, as the page of `sgmft audit` writes them, applied to posts."""

from collections.abc import Sequence
from dataclasses import replace

from sgmft.data.posts import Post
from sgmft.data.tables.cells import to_label, to_text
from sgmft.data.tables.formats import open_table
from sgmft.errors import SgmftError, SgmftNotice, SgmftWarning, warn

COLUMNS = ("id", "label", "new_label")
SHOWN = 3  # fixes that could not be applied


def apply_fixes(posts: Sequence[Post], path: str | None, strict: bool = False) -> list[Post]:
    """Return posts with the labels of a table of `COLUMNS`; those with an empty `new_label` go.

    A post without an id is named by its place, as `Post.place` has it. A fix is not applied where
    no post, or more than one, has its id, where its `label` is not the post's, or where it
    contradicts an earlier one: a warning says so, SgmftError with `strict`. SgmftError too for a
    table without one of the columns, and one of which no fix can be applied.
    """
    if path is None:
        return list(posts)
    known, fixes, refused = dict[str, list[int]](), dict[int, str](), list[str]()
    for i, post in enumerate(posts):
        known.setdefault(post.id or post.place, []).append(i)
    for row in open_table(path).rows:
        where = f"row {row.number}"
        if row.error or (missing := [x for x in COLUMNS if x not in row.values]):
            reason = row.error or f"it has no column {missing[0]}; {', '.join(COLUMNS)} are needed"
            raise SgmftError(f"{path}, {where}: {reason}.")
        name = to_text(row.values["id"]).strip()
        old, new = (to_label(row.values[x]).strip() for x in COLUMNS[1:])
        found = known.get(name, [])
        own = posts[found[0]].label if found else None
        if len(found) != 1:
            refused.append(f"{where}: {'several posts have' if found else 'no post has'} id {name}")
        elif own != old:
            refused.append(f"{where}: the label of {name} is {own!r}, not {old!r}")
        elif fixes.setdefault(found[0], new) != new:
            refused.append(f"{where}: another row has another label for {name}")
    changed = {i: new for i, new in fixes.items() if new}
    text = f"{path}: {len(changed)} labels changed, {len(fixes) - len(changed)} posts left out"
    if refused:
        shown = "; ".join(refused[:SHOWN]) + ("; …" if refused[SHOWN:] else "")
        why = f"{len(refused)} fixes do not belong to these posts: {shown}"
        if strict or not fixes:
            raise SgmftError(f"{path}: {why}. Give the fixes of the table that is read.")
        text = f"{text}; {why}"
    warn(f"{text}.", SgmftWarning if refused else SgmftNotice)
    fixed = [replace(x, label=changed.get(i, x.label)) for i, x in enumerate(posts)]
    return [x for i, x in enumerate(fixed) if fixes.get(i) != ""]
