"""The texts of the page in one language, by code, and the sentences and results made of them."""

from collections.abc import Mapping, Sequence

from sgmft.errors import SENTENCES, Message, Omitted, kind_of
from sgmft.evaluation.explain.page import Wording
from sgmft.serving.problems import Problem
from sgmft.utils.templates import read_texts, render


class Language(Wording):
    """The texts of the page by code; `problems` by kind, `reasons` by the English template."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.texts |= read_texts("serving/page/texts", code)
        self.texts["reasons"] = read_texts("evaluation/templates", code) | self.texts["reasons"]

    def translate(self, message: str, hidden: str = "", *, bare: bool = False) -> str:
        """Return a message of the library in this language; one without a translation as it is.

        Without `hidden`, the server's own folder; `bare` without its names and numbers.
        """
        reasons: dict[str, str] = self.texts["reasons"]
        if not isinstance(message, Message):
            message = kind_of(message) if bare and message not in reasons else message
            return reasons.get(message, message)
        values = dict(message.values)
        for name, value in values.items():
            if name in SENTENCES:
                values[name] = self.translate(value, hidden, bare=bare)
            elif bare:
                values[name] = value if name == "kinds" else Omitted("…")
            elif name == "least":
                values[name] = self.percent(value)
            elif not isinstance(value, int | float):
                values[name] = str(value).replace(hidden, "")
        return reasons.get(message.template, message.template).format(**values)

    def recognized(self, roles: Mapping[str, Sequence[str]], tool: str | None) -> str:
        """Return which columns of a table hold what, and the tool that wrote it."""
        there = {name: roles[x] for x, name in self.texts["roles"].items() if roles[x]}
        lists = {name: self.join(columns, "others") for name, columns in there.items()}
        items = [self.text("in_columns", role=x, columns=columns) for x, columns in lists.items()]
        code = "recognized" if roles["text"] or roles["image"] else "nothing_recognized"
        start = self.text("read_as", tool=tool) if tool else ""
        return start + self.text(code, items=self.join(items, "columns"))

    def describe(self, problem: Problem) -> str:
        """Return the sentence for a problem, by its kind."""
        problems = self.texts["problems"]
        values = problem.detail.values if isinstance(problem.detail, Message) else {}
        values = values | {"detail": self.translate(str(problem))}
        return str(problems.get(problem.kind, problems[""]).format(**values))


LANGUAGES = {code: Language(code) for code in ("en", "zh")}


def problem_html(language: Language, sentence: str) -> str:
    """Return the reason why there is no result, as HTML."""
    return render("serving/page/templates/problem.html", t=language.texts, sentence=sentence)
