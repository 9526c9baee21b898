"""Results as HTML for the page, in its language; `page.js` puts them where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sgmft.evaluation.explain.explanation import Explanation
from sgmft.evaluation.explain.page import MOST_CLASSES, explanation_view
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction
from sgmft.serving.page.language import Language
from sgmft.utils.templates import render

_TEMPLATES = "serving/page/templates/"


def result_html(
    language: Language,
    prediction: Prediction,
    labels: Sequence[str],
    rules: Abstention,
    explanation: Explanation | None = None,
    note: str = "",
) -> str:
    """Return the label or "cannot tell", the probabilities, and any explanation.

    Args:
        labels: K, in the order of the probabilities.
        rules: by which the label was withheld.
        note: the code of a text in the place of an explanation.
    """
    assert prediction.probabilities is not None
    probs = sorted(
        zip(labels, prediction.probabilities.tolist(), strict=True), key=lambda item: -item[1]
    )
    best, percent = probs[0][0], language.percent(probs[0][1])
    members = prediction.label_set
    return render(
        f"{_TEMPLATES}result.html",
        t=language.texts,
        label=prediction.label,
        percent=percent,
        reason=language.translate(prediction.abstained or ""),
        most_probable=language.text("most_probable", label=best, percent=percent),
        label_set=""
        if members is None
        else language.text(
            "label_set",
            coverage=language.percent(rules.coverage or 0),
            labels=", ".join(members) or language.text("no_label"),
        ),
        probs=[(name, x, language.percent(x)) for name, x in probs[:MOST_CLASSES]],
        more=language.text("more_labels", count=len(probs) - MOST_CLASSES)
        if probs[MOST_CLASSES:]
        else "",
        note=language.text(note) if note else "",
        waits=note == "explaining",
        e=None if explanation is None else _explained(language, explanation, prediction.label),
    )


def problem_html(language: Language, sentence: str) -> str:
    """Return the reason why there is no result."""
    return render(f"{_TEMPLATES}problem.html", t=language.texts, sentence=sentence)


def _explained(language: Language, found: Explanation, label: str | None) -> dict[str, Any]:
    """Return what the page of `sgmft explain` shows, in the language of this one."""
    page = explanation_view(found)
    first, *parts, last = page["steps"]
    steps = [
        first | {"name": language.part("nothing"), "number": language.percent(found.base)},
        *(step | {"name": language.part(step["name"])} for step in parts),
        last | {"name": language.part("all"), "number": language.percent(found.probability)},
    ]
    alone = [language.text("alone", part=language.part(x.name), label=x.alone) for x in found.parts]
    pictures = [
        picture
        | {
            "caption": _caption(language, found, i),
            "alt": language.text("picture_alt", number=i + 1),
        }
        for i, picture in enumerate(page["pictures"])
    ]
    return page | {
        "summary": language.summarize(found, label),
        "strongest": language.strongest(found),
        "contributions": language.text("contributions", label=found.label),
        "steps": steps,
        "alone": "; ".join(alone) if len(alone) > 1 else "",
        "pictures": pictures,
    }


def _caption(language: Language, found: Explanation, number: int) -> str:
    """Return the name of a picture in the contributions, that of its file, and its frame."""
    image = found.pictures[number]
    several = len(found.pictures) > 1
    caption = [language.part(f"picture {number + 1}" if several else "picture"), image.file]
    if image.frame is not None:
        caption.append(language.text("frame", number=image.frame))
    return " · ".join(caption)
