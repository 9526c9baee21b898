"""The texts of the page in one language, by code, and the sentences and results made of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sgmft.errors import SENTENCES, Message, Omitted, kind_of
from sgmft.evaluation.explain import page
from sgmft.evaluation.explain.explanation import Explanation, PartAttribution
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction
from sgmft.serving.problems import Problem
from sgmft.utils.templates import render


class Language:
    """The texts of the page by code; `problems` by kind, `reasons` by the English template."""

    def __init__(self, code: str) -> None:
        file = Path(__file__).parent / "texts" / f"{code}.json"
        self.texts: dict[str, Any] = json.loads(file.read_text("utf-8"))

    def text(self, code: str, **values: object) -> str:
        """Return a text, filled in."""
        return str(self.texts[code].format(**values))

    def translate(self, message: str, hidden: str = "", *, bare: bool = False) -> str:
        """Return a message of the library in this language; one without a translation as it is.

        Without `hidden`, the server's own folder; `bare` without its names and numbers, so that
        equal errors count together.
        """
        reasons: dict[str, str] = self.texts["reasons"]
        if bare and not isinstance(message, Message) and message not in reasons:
            message = kind_of(message)
        if not isinstance(message, Message):
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
        items = [
            self.text("in_columns", role=name, columns=self._join(roles[role], "others"))
            for role, name in self.texts["roles"].items()
            if roles[role]
        ]
        code = "recognized" if roles["text"] or roles["image"] else "nothing_recognized"
        start = self.text("read_as", tool=tool) if tool else ""
        return start + self.text(code, items=self._join(items, "columns"))

    def describe(self, problem: Problem) -> str:
        """Return the sentence for a problem, by its kind."""
        problems = self.texts["problems"]
        values = problem.detail.values if isinstance(problem.detail, Message) else {}
        values = values | {"detail": self.translate(str(problem))}
        return str(problems.get(problem.kind, problems[""]).format(**values))

    def percent(self, share: float) -> str:
        """Return a share in percent: 0.874 -> "87 %"; what is not quite 0 or 1 as "under 1 %"."""
        low, usual, high = self.texts["percents"]
        chosen = low if 0 < share < 0.005 else high if 0.995 <= share < 1 else usual
        return str(chosen).format(number=f"{100 * share:.0f}")

    def part(self, name: str, names: str = "parts") -> str:
        """Return the name of a part of a post: "picture 2" -> "图片 2"."""
        kind, _, number = name.partition(" ")
        if number:
            return f"{self.texts['parts'][kind]} {number}"
        return str(self.texts[names][kind])

    def summarize(self, found: Explanation, label: str | None) -> str:
        """Return the main reasons, and the label where it is not `label`, which is shown above."""
        others = [
            self.text("part_alone", part=self.part(part.name, "definite_parts"), label=part.alone)
            for part in page.dissenting_parts(found)
        ]
        more = self.text("others", parts=self._join(others, "others")) if others else ""
        summary = self.text("summary", because=self._because(found), others=more)
        if found.label != label:
            start = {"label": found.label, "percent": self.percent(found.probability)}
            summary = self.text("summary_start", **start) + summary
        return summary[:1].upper() + summary[1:]

    def strongest(self, found: Explanation) -> str:
        """Return how far single words and regions move the probability."""
        effects = page.largest_effects(found).items()
        items = [self.text(f"strongest_{x}", points=f"{points:.1f}") for x, points in effects]
        return self.text("strongest", items=self._join(items, "others"))

    def _because(self, found: Explanation) -> str:
        main = page.main_parts(found)
        if not main:
            return self.text("because_nothing")
        alone = len(main) == 1 and len(found.parts) > 1
        parts = self._join([self._named(found, part) for part in main], "parts")
        return self.text("mostly_because" if alone else "because", parts=parts)

    def _named(self, found: Explanation, part: PartAttribution) -> str:
        if part.name != "text":
            return self.part(part.name, "definite_parts")
        best = [f"“{word}”" for word in page.main_words(found)]
        code = "several_words" if best[1:] else "one_word" if best else "all_words"
        return self.text(code, words=self._join(best, "words"))

    def _join(self, items: Sequence[str], kind: str) -> str:
        between, last = self.texts["separators"][kind]
        return str(last).join(filter(None, [str(between).join(items[:-1]), *items[-1:]]))


LANGUAGES = {code: Language(code) for code in ("en", "zh")}


def result_html(
    language: Language,
    prediction: Prediction,
    labels: Sequence[str],
    rules: Abstention,
    explanation: Explanation | None = None,
    note: str = "",
) -> str:
    """Return the result as HTML, with an explanation or, in its place, the text of code `note`."""
    assert prediction.probabilities is not None
    probs = sorted(zip(labels, prediction.probabilities.tolist(), strict=True), key=lambda x: -x[1])
    return render(
        "serving/page/templates/result.html",
        language=language,
        t=language.texts,
        prediction=prediction,
        label=prediction.label,
        percent=language.percent(probs[0][1]),
        coverage=rules.coverage,
        probs=probs,
        shown=page.MOST_CLASSES,
        note=note,
        found=explanation,
        view=explanation and page.explanation_view(explanation),
        summary=explanation and language.summarize(explanation, prediction.label),
    )


def problem_html(language: Language, sentence: str) -> str:
    """Return the reason why there is no result, as HTML."""
    return render("serving/page/templates/problem.html", t=language.texts, sentence=sentence)
