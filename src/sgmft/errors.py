"""Errors and warnings for users, and the messages they carry."""

import difflib
import re
import tomllib
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial, reduce
from pathlib import Path
from typing import Any, Self

TEXTS: dict[str, str] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
"""Templates of longer messages, by name."""


class SgmftError(Exception):
    """A mistake in the input, in one sentence: what, where (file, row, column), and the fix.

    The command line prints the sentence and ends with `exit_code`; it never shows a traceback. With
    `values` the message is the template of a `Message`.
    """

    exit_code = 2

    def __init__(self, message: str, /, **values: Any) -> None:
        super().__init__(Message(message, **values) if values else message)


class NoUsableRowError(SgmftError):
    """Every row of a table has an error; `summary` counts them."""

    exit_code = 3
    summary: Any = None


def check_name(name: str, known: Collection[str], what: str) -> None:
    """Raise SgmftError, which begins with `what`, where a name is none of those that are known."""
    if name not in known:
        raise SgmftError(f"{what} {name!r}: use {', '.join(known)}.{hint(name, known)}")


def hint(name: str, known: Collection[str]) -> str:
    """Return a sentence that asks for the known name like this one, if there is any."""
    close = difflib.get_close_matches(name, known, 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def needs_extra(extra: str, what: str) -> AbstractContextManager[None]:
    """Raise SgmftError, with the extra that `what` needs, where an import in the block fails."""
    fix = f"pip install 'sgmft[{extra}]' ({{error}})."
    return raising(f"{what} needs packages that are not installed: {fix}", ImportError)


@contextmanager
def raising(message: str, *kinds: type[Exception]) -> Iterator[None]:
    """Raise SgmftError, perhaps with the {error}, where one of these is raised in the block."""
    try:
        yield
    except kinds as error:
        why = getattr(error, "strerror", None) or error  # without the file's name
        raise SgmftError(message.replace("{error}", str(why))) from error


class SgmftWarning(UserWarning):
    """Something a user should know of that does not stop the work, in one sentence."""


class SgmftNotice(SgmftWarning):
    """What was recognised or chosen for the user, in one line; nothing is wrong."""


class Message(str):
    """A sentence that keeps its template and values, so that it can be translated."""

    template: str  # with names in braces; the code by which a translation is found
    values: dict[str, Any]  # what replaces the names; `Message`s among them are translated, too

    def __new__(cls, template: str, /, **values: Any) -> Self:
        """Fill in the template."""
        made = super().__new__(cls, template.format(**values))
        made.template, made.values = template, values
        return made

    def __str__(self) -> str:
        return self  # so that it outlives the exception that carries it

    @property
    def kind(self) -> str:
        """The sentence with … in place of what is filled in; equal for equal mistakes."""
        values = {k: kind_of(x) if k in SENTENCES else Omitted("…") for k, x in self.values.items()}
        if {"first", "second"} == values.keys():  # the same twice is said once
            return "; ".join(dict.fromkeys("; ".join(values.values()).split("; ")))
        return self.template.format(**values)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Message, self.template, **self.values), ()


HEARD: ContextVar[list[str] | None] = ContextVar("HEARD", default=None)
"""Where `warn` puts its messages as well, for who shows them in another language."""


def warn(message: str, category: type[SgmftWarning] = SgmftWarning) -> None:
    """Warn with a message that can be translated."""
    if (heard := HEARD.get()) is not None:
        heard.append(message)
    plain = str.__str__(make_printable(message))  # what hears of it may know no `Message`
    warnings.warn(plain, category, stacklevel=3)


@contextmanager
def unwarned() -> Iterator[None]:
    """Keep to itself what is warned of, by `warn` or otherwise, where it is said elsewhere."""
    before = HEARD.set([])
    try:
        with warnings.catch_warnings(action="ignore", category=SgmftWarning):
            yield
    finally:
        HEARD.reset(before)


class Omitted(str):
    """Stands for a value, however that is formatted."""

    def __format__(self, spec: str) -> str:
        return str(self)

    __repr__ = str.__str__


SENTENCES = ("first", "second", "reason")  # values of a `Message` that are messages themselves
_DETAILS = re.compile(r"'[^']*'|\S+\.\w{2,5}\b|\b\d+")


def kind_of(reason: str) -> str:
    """Return the kind of a reason, for counts: without file names, quoted words and numbers."""
    return reason.kind if isinstance(reason, Message) else _DETAILS.sub("…", reason)


def join_messages(messages: Sequence[str]) -> str:
    """Return one sentence of several, each of them still to be translated."""
    joined = partial(Message, "{first}; {second}")
    return reduce(lambda a, b: joined(first=a, second=b), messages) if messages else ""


def make_printable(text: str) -> str:
    """Replace characters that are not printable, so that a message is one line, safe to show."""
    if text.isprintable():
        return text
    if isinstance(text, Message):
        values = {k: make_printable(x) if isinstance(x, str) else x for k, x in text.values.items()}
        return Message(text.template, **values)
    return "".join(c if c.isprintable() else "?" for c in text)
