"""Label Studio tasks out: posts to label, with pre-annotations, and the labelling configuration.

`label_studio` reads what Label Studio exports of them. Pictures become addresses of
its local files, relative to the folder of the posts' table; an export that is saved in that folder
finds them again.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from sgmft.data.posts import Attachment, Post
from sgmft.data.tables.cells import replace_surrogates
from sgmft.data.tables.label_studio import LOCAL_FILES
from sgmft.errors import SgmftError, SgmftWarning
from sgmft.locator.prediction import Prediction
from sgmft.utils.files import write_whole

CONTROL = "label"  # name of the Choices, and so of the column in an export


def write_tasks(
    path: str | Path,
    posts: Sequence[Post],
    labels: Sequence[str],
    folder: Path,
    *,
    predictions: Sequence[Prediction | None] = (),
    guessed_by: str = "sgmft",
) -> Path:
    """Write tasks for Label Studio's import, and beside them the labelling configuration.

    Args:
        path: of the tasks, `NAME.json`.
        posts: one task each, in this order.
        labels: the choices, in the order shown.
        folder: of the posts' table, which Label Studio serves local files from.
        predictions: what a model says of each post; shown as pre-annotations.
        guessed_by: name of the model, for Label Studio's `model_version`.

    Returns:
        The path of the configuration, `NAME.config.xml`.

    Raises:
        SgmftError: a picture lies outside `folder`, or the files cannot be written.
    """
    path = Path(path)
    several = any(len(post.images) > 1 for post in posts)
    shown = "text" if any(post.text for post in posts) else "image"
    tasks = []
    for i, post in enumerate(posts):
        task: dict[str, Any] = {"data": _data(post, folder, several)}
        guess = predictions[i] if predictions else None
        if guess is not None and guess.label is not None:
            task["predictions"] = [_prediction(guess, shown, guessed_by)]
        tasks.append(task)
    beside = [x for post in posts for x in _paths(post) if os.sep not in os.path.relpath(x, folder)]
    if beside:
        warnings.warn(
            f"Label Studio serves no picture that lies in {folder} itself, like "
            f"{beside[0].name}: move them into a folder below it, and name them with it in "
            "the table.",
            SgmftWarning,
            stacklevel=2,
        )
    config = path.with_suffix(".config.xml")
    text = json.dumps(tasks, ensure_ascii=False, indent=1, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(config, _config(posts, labels, several, shown).encode())
        write_whole(path, replace_surrogates(text).encode())
    except OSError as error:
        raise SgmftError(f"{path} cannot be written: {error.strerror or error}.") from error
    return config


def _data(post: Post, folder: Path, several: bool) -> dict[str, Any]:
    """What a task shows of a post, and what leads back to its row."""
    images = [LOCAL_FILES + quote(_relative(post, image, folder)) for image in _paths(post)]
    told = {"id": post.id, "user": post.user, "row": post.place}
    return {
        "text": post.text,
        # Label Studio wants the key in any case, and opens no task with an empty list.
        "image": (images or "") if several else "".join(images),
        **{name: value for name, value in told.items() if value},
    }


def _paths(post: Post) -> list[Path]:
    if any(isinstance(file, Attachment) for file in post.images):
        raise SgmftError("Label Studio can be shown files only, not pictures in memory: save them.")
    return [Path(str(file)) for file in post.images]


def _relative(post: Post, image: Path, folder: Path) -> str:
    """A picture's path as Label Studio is to find it below the folder it serves."""
    path = os.path.relpath(image, folder)
    if path == os.pardir or path.startswith(os.pardir + os.sep):
        raise SgmftError(
            f"{post.place or 'A post'}: Label Studio cannot be shown {image}, which lies outside "
            f"the table's folder: copy it there, or write a table with -o suggestions.csv."
        )
    return replace_surrogates(Path(path).as_posix())


def _prediction(guess: Prediction, shown: str, guessed_by: str) -> dict[str, Any]:
    choice = {
        "from_name": CONTROL,
        "to_name": shown,
        "type": "choices",
        "value": {"choices": [guess.label]},
    }
    return {"model_version": guessed_by, "score": guess.probability, "result": [choice]}


def _config(posts: Sequence[Post], labels: Sequence[str], several: bool, shown: str) -> str:
    """The labelling interface: text, one choice among the labels, pictures."""
    view = ElementTree.Element("View")
    if any(post.text for post in posts):
        ElementTree.SubElement(view, "Text", name="text", value="$text")
    options = {"name": CONTROL, "toName": shown, "choice": "single", "showInline": "true"}
    choices = ElementTree.SubElement(view, "Choices", {**options, "required": "true"})
    for label in labels:
        ElementTree.SubElement(choices, "Choice", value=replace_surrogates(label))
    if any(post.images for post in posts):  # last: a tall one would push the choices out of sight
        value = {"valueList" if several else "value": "$image"}
        ElementTree.SubElement(view, "Image", {"name": "image", **value})
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"
