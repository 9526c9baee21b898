"""`python examples/from_python.py tools/`: a model in Python and in the tools around it.

Sample posts as a DataFrame, predictions, scikit-learn's `GridSearchCV`, a round trip through
MLflow, and suggestions as Label Studio asks for them. Beside sgmft it needs MLflow and
scikit-learn: `pip install '.[mlflow]' scikit-learn`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import mlflow
import pandas as pd
from sklearn.model_selection import GridSearchCV
from synthetic.sample import write_sample

import sgmft.mlflow
from sgmft import Post, SemanticLocator
from sgmft.data.tables.label_studio import write_tasks


def quickstart(train: Any, test: Any, root: Path, model: Path) -> SemanticLocator:
    """Train on a DataFrame, save, load, and predict another."""
    SemanticLocator(root=root).fit(train).save_pretrained(model)
    locator = SemanticLocator.from_pretrained(model, root=root)
    print(locator.predict_frame(test)[["label", "probability", "error"]].head(3))
    print(f"accuracy on {len(test)} other posts: {locator.score(test, test['label']):.3f}")
    (lost,) = locator.predictions([Post(images="lost.jpg")])
    print(f"a lost picture: {lost.error}")
    return locator


def search(frame: Any, root: Path) -> None:
    """Choose a method and a cleaning by cross-validation."""
    grid = {"method": ["gated-experts", "linear-probe"], "cleaning": ["light", "none"]}
    found = GridSearchCV(SemanticLocator(root=root), grid, cv=2).fit(frame, frame["label"])
    print(f"best of {len(found.cv_results_['params'])}: {found.best_params_}")


def through_mlflow(locator: SemanticLocator, texts: list[str], folder: Path) -> None:
    """Log the model to a folder, load it, and compare the predictions."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    mlflow.set_tracking_uri((folder / "mlflow").absolute().as_uri())
    with mlflow.start_run():
        logged = sgmft.mlflow.log_model(locator, name="place")
    frame = pd.DataFrame({"text": texts})
    found = mlflow.pyfunc.load_model(logged.model_uri).predict(frame)
    assert list(found["label"]) == list(locator.predict(frame)), "MLflow changed the predictions"
    print(f"from MLflow, {logged.model_uri}: {', '.join(found['label'])}")


def for_label_studio(locator: SemanticLocator, model: Path, texts: list[str], tasks: Path) -> None:
    """Serve the model on a free port, and ask for suggestions as Label Studio does."""
    posts = [Post(text) for text in texts]
    config = write_tasks(tasks, posts, locator.labels, tasks.parent).read_text("utf-8")
    command = [sys.executable, "-m", "sgmft", "serve", str(model), "--port", "0", "--no-page"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        address = next(line for line in server.stderr or () if " at http" in line).split()[-1]
        asked = {"schema": config, "label_config": config, "tasks": json.loads(tasks.read_bytes())}
        for path in ("/setup", "/predict"):
            body, kind = json.dumps(asked).encode(), {"Content-Type": "application/json"}
            found = json.load(urlopen(Request(address + path, body, kind), timeout=60))
            print(f"Label Studio, {path}: {found.get('model_version') or found['results'][0]}")
        server.terminate()
    labels = [x["result"][0]["value"]["choices"][0] for (x,) in found["results"]]
    assert labels == locator.predict(posts), "the server suggests other labels"


def main(folder: Path) -> None:
    """Do all of it in a folder, which is made if need be."""
    table = write_sample(folder / "posts", posts=240, seed=1)
    frame = pd.read_json(table, lines=True)
    train, test = (frame[frame["split"] == part] for part in ("train", "test"))
    locator = quickstart(train, test, table.parent, folder / "model")
    search(train, table.parent)
    texts = test["text"][test["text"] != ""].tolist()[:3]
    through_mlflow(locator, texts, folder)
    for_label_studio(locator, folder / "model", texts, folder / "tasks.json")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "tools"))
