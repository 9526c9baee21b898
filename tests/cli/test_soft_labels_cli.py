"""`sgmft train` on soft labels, several annotators and weights, on vectors of the posts."""

import numpy as np
import pytest

from small_tables import read_rows, write_rows

VECTORS = ("--features-table", "vectors.npz", "--features", "none")
LABELS = ("Home", "School", "Work")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 posts whose vectors tell their labels, and a teacher and annotators that err."""
    folder, rng = tmp_path_factory.mktemp("soft"), np.random.default_rng(0)
    truth = np.arange(60) % 3
    vectors = rng.standard_normal((60, 4)).astype(np.float32)
    vectors[:, :3] += 4 * np.eye(3)[truth]
    ids = [f"p{i}" for i in range(60)]
    np.savez(folder / "vectors.npz", id=np.array(ids), text=vectors)
    rows = []
    for i, k in enumerate(truth):
        wrong = (k + 1) % 3
        said = wrong if i % 5 == 0 else k
        probs = np.full(3, 0.1)
        probs[said] += 0.4
        probs[k] += 0.3
        names = {"gpt": said, "qwen": wrong if i % 4 == 1 else k, "anna": k}
        row = {"id": ids[i], "label": LABELS[said], "truth": LABELS[k] if i < 15 else ""}
        row |= {name: LABELS[x] for name, x in names.items()}
        row |= {f"p_{name}": f"{p:.4f}" for name, p in zip(LABELS, probs, strict=True)}
        rows.append(row | {"weight": "1", "w": str(0.0 if i % 5 == 0 else 2.0)})
    write_rows(rows, folder / "posts.csv")
    for name in ("p_Home", "p_School", "p_Work"):
        rows[2][name] = ""
    rows[3]["p_Work"], rows[4]["p_Work"] = "-1", "0.9"
    write_rows(rows, folder / "odd.csv")
    write_rows([{**row, "label": ""} for row in rows], folder / "bare.csv")
    return folder


@pytest.fixture
def train(run, folder, tmp_path):
    """Train; return what was printed, and the probabilities that the model predicts."""

    def train(*words, table="posts.csv"):
        ended = run("train", table, "-o", tmp_path / "m", *VECTORS, *words, cwd=folder)
        assert ended.returncode == 0, ended.stderr
        output = tmp_path / "out.jsonl"
        done = run("predict", tmp_path / "m", "posts.csv", "-o", output, *VECTORS, cwd=folder)
        assert done.returncode == 0, done.stderr
        rows = read_rows(output)
        return ended.stderr, np.array([[row[f"p_{name}"] for name in LABELS] for row in rows])

    return train


def right(probs):
    return (probs.argmax(1) == np.arange(60) % 3).mean()


def test_probabilities_of_a_table_are_learned(train):
    printed, soft = train("--soft-labels")
    assert "Soft labels of 60 posts: Home, School, Work." in printed
    assert "Trained on 60 posts, 3 labels" in printed and "a model predicted" not in printed
    _, hard = train()
    assert right(soft) > 0.9
    assert np.abs(soft - hard).max() > 0.02
    _, same = train("--soft-labels", "--class-weights", "balanced")
    assert np.abs(same - soft).max() < 0.1


def test_bad_rows_are_reported_and_rows_without_use_their_label(train):
    printed, _ = train("--soft-labels", table="odd.csv")
    assert "Soft labels of 57 posts" in printed and "Trained on 58 posts" in printed
    assert "2 of 60 rows could not be used" in printed
    assert "(odd.csv, row 5: probabilities: '-1' is no number of at least 0)" in printed
    assert "(odd.csv, row 6: the probabilities of its labels sum to 1" in printed
    printed, _ = train("--soft-labels", table="bare.csv")
    assert "1 of 60" not in printed and "no label" in printed


def test_a_column_of_true_labels_goes_before_the_teacher(train):
    printed, found = train("--soft-labels", "--column", "label=truth")
    assert "Soft labels of 45 posts" in printed and "Trained on 60 posts" in printed
    assert right(found) > 0.9


def test_labels_of_annotators_are_weighed_by_known_ones(train):
    words = "--annotators", "gpt, qwen,anna", "--column", "label=truth"
    printed, found = train(*words)
    assert "gpt: right on 80 % of 15 posts with a known label; estimated 8" in printed
    assert "anna: right on 100 % of 15 posts with a known label; estimated 9" in printed
    assert "Trained on 60 posts, 3 labels" in printed and right(found) > 0.95
    printed, _ = train("--annotators", "gpt,qwen")
    assert "annotators can only be counted" not in printed  # the column label is filled in


def test_weights_are_those_of_the_column_that_is_named(train):
    """Labels that are wrong have weight 0 in `w`, and 1 in `weight`, which nobody named."""
    _, named = train("--column", "weight=w", "--set", "lexical=false")
    _, plain = train("--set", "lexical=false")
    assert right(named) == 1
    assert np.log(named.max(1)).mean() > np.log(plain.max(1)).mean() + 0.05


def test_what_cannot_be_is_refused(run, folder, tmp_path):
    def refused(*words):
        ended = run("train", "posts.csv", "-o", tmp_path / "n", *VECTORS, *words, cwd=folder)
        assert ended.returncode == 2 and not (tmp_path / "n").exists()
        return ended.stderr

    assert "Give --soft-labels or --annotators, not both" in refused(
        "--soft-labels", "--annotators", "gpt"
    )
    assert "no column 'gtp'" in refused("--annotators", "gtp") and "'gpt'?" in refused(
        "--annotators", "gtp"
    )
    assert "no post has probabilities" in refused("--soft-labels", "--column", "label=label")
    assert "has no column 'v'" in refused("--column", "weight=v")
    assert "the fields are text, image, id, label, user, time, weight" in refused(
        "--column", "wait=w"
    )


def test_a_run_that_was_stopped_is_not_continued_with_other_probabilities(tmp_path):
    """What identifies a run has the probabilities in it, not their best labels alone."""
    from models.baselines.test_every_method import task
    from sgmft.training.trainer import identity_of

    work = task("mplug")
    model = work.model(work.data.features)
    soft = np.full((len(work.data.labels), 3), 0.2, np.float32)
    soft[np.arange(len(soft)), work.data.labels] = 0.6
    other = soft.copy()
    other[0] = [0.5, 0.3, 0.2]
    datas = [work.data, work.data._replace(soft=soft), work.data._replace(soft=other)]
    found = {identity_of(model, [data], work.preset.train) for data in datas}
    assert len(found) == 3
