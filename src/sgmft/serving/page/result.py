"""What the model says of one post, as HTML for the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sgmft.evaluation.explain.explanation import Explanation
from sgmft.evaluation.explain.page import MOST_CLASSES, explanation_view
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction
from sgmft.serving.page.wording import Wording
from sgmft.utils.templates import render


def result_html(
    words: Wording,
    said: Prediction,
    labels: Sequence[str],
    rules: Abstention,
    why: Explanation | None = None,
    note: str = "",
) -> str:
    """The label or "cannot tell", the probabilities, and where it is there, the explanation.

    Args:
        labels: K, in the order of the probabilities.
        rules: that the label was kept back by.
        note: stands in the place of an explanation.
    """
    assert said.probabilities is not None
    probs = sorted(zip(labels, said.probabilities.tolist(), strict=True), key=lambda item: -item[1])
    best, chance = probs[0]
    members = said.label_set
    return render(
        "serving/templates/serving_result.html",
        w=words,
        label=said.label,
        percent=words.percent(chance),
        reason=_reason(words, said, rules),
        most_probable=words.most_probable.format(label=best, percent=words.percent(chance)),
        members=members,
        label_set=words.label_set.format(
            coverage=words.percent(rules.coverage or 0),
            labels=", ".join(members or ()) or words.none,
        ),
        probs=[(name, x, words.percent(x)) for name, x in probs[:MOST_CLASSES]],
        more=max(0, len(probs) - MOST_CLASSES),
        note=note,
        e=None if why is None else _explained(words, why, said.label),
    )


def problem_html(words: Wording, sentence: str) -> str:
    """Why there is no result."""
    return render("serving/templates/serving_problem.html", w=words, sentence=sentence)


def _reason(words: Wording, said: Prediction, rules: Abstention) -> str:
    if said.abstained is None:
        return ""
    below = words.below.format(percent=words.percent(rules.min_probability or 0))
    return words.reasons.get(said.abstained, below)


def _explained(words: Wording, why: Explanation, label: str | None) -> dict[str, Any]:
    """As the page of `sgmft explain` has it, in the words of this one.

    Args:
        label: that is said already.
    """
    page = explanation_view(why)
    first, *parts, last = page["steps"]
    steps = [
        first | {"name": words.part("nothing"), "number": words.percent(why.base)},
        *(step | {"name": words.part(step["name"])} for step in parts),
        last | {"name": words.part("all"), "number": words.percent(why.probability)},
    ]
    alone = [words.alone.format(part=words.part(x.name), label=x.alone) for x in why.parts]
    pictures = [
        picture | {"caption": _caption(words, why, i)} for i, picture in enumerate(page["pictures"])
    ]
    start = words.summary_start.format(label=label, percent=words.percent(why.probability))
    summary = words.summary(why).removeprefix(start)
    return page | {
        "summary": summary[:1].upper() + summary[1:],
        "strongest": words.strongest(why),
        "contributions": words.contributions.format(label=why.label),
        "steps": steps,
        "alone": "; ".join(alone) if len(alone) > 1 else "",
        "pictures": pictures,
    }


def _caption(words: Wording, why: Explanation, number: int) -> str:
    """Which picture it is, as the contributions name it, and of which file."""
    share = why.pictures[number]
    several = len(why.pictures) > 1
    told = [words.part(f"picture {number + 1}" if several else "picture"), share.file]
    if share.frame is not None:
        told.append(words.frame.format(number=share.frame))
    return " · ".join(told)
