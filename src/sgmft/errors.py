"""What is told to a user: mistakes that end the work, and warnings that do not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, Self


class SgmftError(Exception):
    """A mistake in the input, told in one sentence: what, where (file, row, column), and the cure.

    The command line prints the sentence and ends with exit code 2; it never shows a traceback.
    """


class Message(str):
    """A sentence that keeps its template and what it was filled in with, so as to be translated.

    Attributes:
        template: the sentence with names in braces; the code by which a translation is found.
        values: what stands in their place; `Message`s among them are translated, too.
    """

    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, /, **values: Any) -> Self:
        """Fill in the template."""
        made = super().__new__(cls, template.format(**values))
        made.template, made.values = template, values
        return made

    def __str__(self) -> str:
        return self  # so that it outlives the exception that carries it

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Message, self.template, **self.values), ()


def join_messages(messages: Sequence[str]) -> str:
    """Return one sentence of several, each of them still to be translated."""
    if not messages:
        return ""
    return reduce(lambda a, b: Message("{first}; {second}", first=a, second=b), messages)


def make_printable(text: str) -> str:
    """What a file holds, as a message may show it: one line that does nothing to a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


class SgmftWarning(UserWarning):
    """What goes on all the same, and a user should know of: one sentence."""
