"""What the page says, in one language; `ENGLISH` and `CHINESE` are in files of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sgmft.evaluation.explain.explanation import Explanation


@dataclass(frozen=True)
class Wording:
    """Everything the page says in one language.

    Names in braces are filled in by `str.format`.
    """

    code: str  # of the language, as HTML has it
    title: str
    lead: str
    other: str  # the other language's own name
    other_code: str
    needs_script: str

    post_tab: str
    text: str
    text_hint: str
    files: str
    coverage: str
    coverage_hint: str
    off: str
    ask: str
    examples: str
    example_names: tuple[str, ...]
    empty: str

    cannot_tell: str
    most_probable: str  # {label}, {percent}
    label_set: str  # {coverage}, {labels}
    none: str
    reasons: Mapping[str, str]  # English reason of abstaining -> this language
    below: str  # {percent}
    reason: Callable[[str], str]  # the library's, why a post or a table cannot be used
    reading: str
    no_explanation: str
    too_long_to_explain: str
    your_post: str
    no_text: str
    no_picture: str
    probabilities: str
    more_labels: str  # {count}
    contributions: str  # {label}
    speaks_for: str
    speaks_against: str
    shades: str
    part: Callable[[str], str]  # "picture 2" and so on
    frame: str  # {number}
    picture_alt: str
    heat_alt: str
    alone: str  # {part}, {label}
    how: str
    how_told: str
    percent: Callable[[float], str]
    summary_start: str  # {label}, {percent}
    summary: Callable[[Explanation], str]
    strongest: Callable[[Explanation], str]

    table_tab: str
    table: str
    table_hint: str
    pictures: str
    pictures_hint: str
    label_table: str
    stop: str
    stopped: str
    download: str
    unpacking: str
    predicting: str
    unit: str
    done: str  # {labelled}, {posts}
    withheld: str  # {count}
    unusable: str  # {count}
    preview: str  # {count}
    table_empty: str

    failed: str
    nothing_given: str
    no_table: str
    gone: str
    too_large: str  # {size}, {most}
    text_too_long: str  # {count}, {most}
    too_many_pictures: str  # {count}, {most}
    problems: Mapping[str, str]  # {detail}
    zips: Mapping[str, str]  # {name}
