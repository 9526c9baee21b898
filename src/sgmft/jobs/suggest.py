"""Suggest the posts of a table most worth labelling, as Label Studio tasks or as a table."""

import heapq
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sgmft.data.posts import Post, raise_first_error, require_columns
from sgmft.data.source import JobSummary, Source, describe_errors
from sgmft.data.tables import Columns, iter_posts, open_writer
from sgmft.data.tables.cells import to_text
from sgmft.data.tables.columns import USUAL
from sgmft.data.tables.label_studio import CONTROL, write_tasks
from sgmft.errors import TEXTS, Message, SgmftError, warn
from sgmft.evaluation.calibration import temper
from sgmft.features.features import Features
from sgmft.locator.locator import SemanticLocator
from sgmft.locator.prediction import Prediction, renamed_columns
from sgmft.models.arrays import Floats, Reals, normalize
from sgmft.models.base import mean_and_divisor, predict_logits

POOL = 8000  # posts looked at; of more, so many are drawn: similarities are 4 bytes a pair
POWER = 2  # of cosines, with a model
RANK, UNCERTAINTY, GUESS = "suggested_rank", "uncertainty", "model_label"  # columns


class Suggestion(NamedTuple):
    """A post worth labelling, and what a model predicts so far."""

    post: Post
    uncertainty: float | None  # 0..1; None without a model
    prediction: Prediction | None


class SuggestResult(NamedTuple):
    """The outcome of `suggest_table`."""

    summary: JobSummary  # posts read, and those that could not be used
    posts: int  # how many are suggested
    labelled: int  # posts that have a label already
    folder: Path  # of the table, for Label Studio
    config: Path | None  # the labelling configuration, where tasks were written


def suggest_table(
    source: Source,
    output: str | Path,
    locator: SemanticLocator,
    count: int,
    labels: Sequence[str] = (),
    labelled: Sequence[Source] = (),
    seed: int = 0,
    disagree: str | None = None,
    on_encoded: Callable[[int], None] | None = None,
) -> SuggestResult:
    """Write the posts of a table most worth labelling, in that order; see `suggest_posts`.

    A `.json` has Label Studio tasks, and the labelling configuration beside it. Any other table has
    the input's columns, `suggested_rank`, `uncertainty` (empty without a model), and a `label` to
    fill in. Annotators choose among `labels`, the model's, and those found in the tables.
    """
    if disagree is not None and locator.network is None:
        raise SgmftError(f"--disagree {disagree} compares with a model: name it with --model.")
    for table in (source, *labelled):
        table.refuse_overwriting(output)
    if _holds_labels(output):
        raise SgmftError(TEXTS["labels lost"], output=output)
    posts, seen = source.read_posts(), list[Post]()
    if disagree is not None:
        require_columns(posts, [disagree], "--disagree")
        if disagree in (source.columns.label, *USUAL["label"]):  # no human's
            posts = [replace(post, label=None) for post in posts]
    for table in labelled:
        some = table.read_posts()
        seen += some if any(post.label is not None for post in some) else table.read_labelled()
    known = [post for post in (*posts, *seen) if post.label is not None]
    names = dict.fromkeys([*labels, *locator.labels, *sorted({str(p.label) for p in known})])
    tasks = str(output).lower().endswith(".json")
    if tasks and not names:
        raise SgmftError(TEXTS["no choices"])
    every = [*posts, *(post for post in seen if post.label is not None)]
    chosen, read = suggest_posts(every, locator, count, seed, disagree, source.strict, on_encoded)
    summary = JobSummary(len(posts) + len(seen) - len(read)) + JobSummary.of(read)
    if not chosen:
        bad = f" Not used: {describe_errors(summary.errors)}." if summary.errors else ""
        raise SgmftError(TEXTS["nothing to suggest"], table=source.table, errors=bad)
    config = None
    if tasks:
        version = " ".join(dict.fromkeys(["sgmft", locator.method.name, locator.preset.name]))
        guesses = [x and (x.label or "", x.probability or 0.0) for _, _, x in chosen]
        given = [one.post for one in chosen], list(names), table_folder(source.table)
        config = write_tasks(output, *given, predictions=guesses, model_version=version)
    else:
        columns = list(dict.fromkeys(key for post in posts for key in post.row))
        added = [RANK, UNCERTAINTY, *[GUESS] * (disagree is not None)]
        if not any(column.strip().casefold() == CONTROL for column in columns):
            added.append(CONTROL)
        renamed = renamed_columns(columns, added)
        with open_writer(output, [*renamed.values(), *added]) as writer:
            for rank, one in enumerate(chosen, 1):
                own: dict[str, Any] = {RANK: rank, UNCERTAINTY: one.uncertainty}
                own |= {GUESS: one.prediction.label} if one.prediction and disagree else {}
                writer.write([{renamed[key]: x for key, x in one.post.row.items()} | own])
    return SuggestResult(summary, len(chosen), len(known), table_folder(source.table), config)


def suggest_posts(
    posts: Sequence[Post],
    locator: SemanticLocator,
    count: int,
    seed: int = 0,
    disagree: str | None = None,
    strict: bool = False,
    on_encoded: Callable[[int], None] | None = None,
) -> tuple[list[Suggestion], list[Post]]:
    """Choose the posts most worth labelling; see `choose_posts` for `count` and `seed`.

    Of posts with the same content one is suggested, and none where one has a label. Those with a
    label cover what is like them. A trained locator weighs posts by its uncertainty; of any other
    only the encoder is used. `disagree` is a column of labels, by another model say: of these,
    those that the locator takes for wrong are suggested, and their probability to be so counts.
    Returns the posts, best first, and all looked at, with the `error` of those that cannot be used.
    """
    encoded = locator.encode(posts, on_encoded=on_encoded)
    if strict:
        raise_first_error(encoded.refused)
    covered: dict[str, int] = {}  # content key to the position of the first post of that content
    unlabelled: dict[tuple[str, str], int] = {}
    for i, (key, post) in enumerate(zip(encoded.keys, encoded.posts, strict=True)):
        other = "" if disagree is None else to_text(post.row.get(disagree)).strip()
        if post.label is not None:
            covered.setdefault(key, i)
        elif disagree is None or other:
            unlabelled.setdefault((key, other), i)
    kept = [*covered.values(), *(i for (key, _), i in unlabelled.items() if key not in covered)]
    features = encoded.features.take(np.array(kept, np.int64))
    probs = uncertainty = None
    if locator.network is not None:
        output = predict_logits(locator.network, features)
        probs = temper(output.logits, locator.temperatures[features.parts])
        uncertainty = margin_uncertainty(probs)
        if disagree is not None:
            uncertainty = _doubts(locator, [encoded.posts[i] for i in kept], probs, disagree)
            keys = [encoded.keys[i] for i in kept[len(covered) :]]
            if seen := int(locator.held_out.trained_with(keys).sum()):
                warn(Message(TEXTS["taught by them"], seen=seen, posts=len(keys)))
            wrong = np.flatnonzero((uncertainty > 0) | (np.arange(len(kept)) < len(covered)))
            if len(wrong) == len(covered):
                raise SgmftError(TEXTS["nothing to doubt"], column=disagree)
            kept, features = [kept[i] for i in wrong], features.take(wrong)
            probs, uncertainty = probs[wrong], uncertainty[wrong]
    first, chosen = range(len(covered)), []
    for i in choose_posts(features, count, uncertainty=uncertainty, covered=first, seed=seed):
        post = encoded.posts[kept[i]]
        if probs is None or uncertainty is None:
            chosen.append(Suggestion(post, None, None))
        else:
            guess = Prediction(post, locator.labels[int(probs[i].argmax())], probs[i], None)
            chosen.append(Suggestion(post, float(uncertainty[i]), guess))
    return chosen, [*encoded.posts, *encoded.refused]


def _doubts(locator: SemanticLocator, posts: list[Post], probs: Floats, column: str) -> Floats:
    """Return how probable labels of a column are wrong; 0 where the model says the same."""
    given = [to_text(post.row.get(column)).strip() for post in posts]
    index = {x.casefold(): i for i, x in enumerate(locator.labels)}
    index |= {x: i for i, x in enumerate(locator.labels)}  # goes before another case
    numbers = np.array([index.get(x, index.get(x.casefold(), -1)) for x in given], np.int64)
    if odd := sorted({x for x, i in zip(given, numbers, strict=True) if x and i < 0}):
        warn(Message(TEXTS["unknown to the model"], column=column, labels=odd[:10]))
    own = np.where(numbers < 0, 0, probs[np.arange(len(posts)), numbers])
    return np.where(probs.argmax(1) == numbers, 0, 1 - own).astype(np.float32)


def choose_posts(
    features: Features,
    count: int,
    *,
    uncertainty: Floats | None = None,
    covered: Sequence[int] = (),
    near: float = 0.85,  # cosine from which two are taken for one; distinct ones stay below 0.7
    seed: int = 0,
) -> list[int]:
    """Return positions of the posts most worth labelling, the most worthwhile first.

    Near duplicates of a chosen or `covered` post, which has a label, are passed over, so fewer than
    `count` may be found. `uncertainty`, (N,) in 0..1, is a model's; without it all posts weigh the
    same. The `seed` decides which posts are looked at where there are more than `POOL`.
    """
    if count < 1:
        raise SgmftError(f"At least 1 post must be asked for, not {count}.")
    space = _space(features)  # (N, D)
    known = np.zeros(len(space), bool)
    known[list(covered)] = True
    if len(pool := np.flatnonzero(~known)) > POOL:
        pool = np.sort(np.random.default_rng(seed).choice(pool, POOL, replace=False))
    if not len(pool):
        return []
    open_posts, labelled = space[pool], space[known]
    reached = np.zeros(len(pool), np.float32)  # (P,) similarity to the nearest with a label
    for first in range(0, len(labelled), POOL):
        reached = np.maximum(reached, (open_posts @ labelled[first : first + POOL].T).max(1))
    weights = np.ones(len(pool)) if uncertainty is None else np.asarray(uncertainty)[pool]
    similarity = np.maximum(open_posts @ open_posts.T, 0)  # (P, P)
    if uncertainty is not None:
        similarity **= POWER
        reached, near = reached**POWER, near**POWER
    return [int(pool[i]) for i in _greedy(similarity, weights, reached, count, near)]


def _greedy(alike: Floats, weights: Reals, reached: Floats, count: int, near: float) -> list[int]:
    """Return positions in the order of their gains; lazy, for a gain only falls (Minoux 1978)."""
    weights, best = weights.astype(np.float32), np.maximum(reached, 0)
    stopped = reached >= near

    def gain(i: int) -> float:
        return float(np.maximum(alike[i] - best, 0) @ weights)

    queue = [(-gain(i), i) for i in range(len(alike)) if not stopped[i]]
    heapq.heapify(queue)
    chosen: list[int] = []
    while queue and len(chosen) < count:
        _, i = heapq.heappop(queue)
        if stopped[i]:
            continue
        if queue and (found := (-gain(i), i)) > queue[0]:
            heapq.heappush(queue, found)
            continue
        chosen.append(i)
        best = np.maximum(best, alike[i])
        stopped |= alike[i] >= near
        stopped[i] = True
    return chosen


def _space(features: Features) -> Floats:
    """Return posts (N, Dt + Dv) of unit length, whose products are mean cosines of modalities."""
    modalities = []
    for x, has in zip(features.pooled(), (features.has_text, features.has_image), strict=True):
        unit = np.zeros(x.shape, np.float32)
        mean, deviation = mean_and_divisor(x[has]) if has.sum() > 1 else (0, 1)
        unit[has] = normalize((x[has] - mean) / deviation)
        modalities.append(unit)
    return np.asarray(normalize(np.concatenate(modalities, -1)))


def margin_uncertainty(probabilities: Floats) -> Floats:
    """Return 1 less the margin between the two most probable labels: (N, K) to (N,)."""
    first_two = np.sort(probabilities, axis=1)[:, :-3:-1]  # (N, 2), the larger first
    return (1 - first_two[:, 0] + first_two[:, 1]).astype(np.float32)


def _holds_labels(output: str | Path) -> bool:
    there = str(output) != "-" and Path(output).is_file()
    with suppress(SgmftError):  # it is no table
        posts = iter_posts(output, allow_outside=True) if there else ()
        return any(post.label is not None or post.row.get(CONTROL) for post in posts)
    return False


def table_folder(table: str) -> Path:
    """Return what the image paths of a table are relative to, in full."""
    path = Path(table)
    folder = Path() if table == "-" else path if path.is_dir() else path.parent
    return Path(os.path.abspath(folder))  # noqa: PTH100  no "..", but links as they are


def labelled_source(table: str, source: Source) -> Source:
    """Return a table of labelled posts, read as `source` where it has the columns named there."""
    named = {role: name for role, name in asdict(source.columns).items() if name is not None}
    there = set(replace(source, table=table).columns_seen()) if named and table != "-" else set()
    named = {role: name for role, name in named.items() if name in there}
    return replace(source, table=table, columns=Columns(**named), where={})
