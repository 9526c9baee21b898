"""A table of posts with a fault of every kind, or with none."""

import numpy as np
from PIL import Image

from small_tables import write_rows

WORDS = {"Home": "sofa oven lamp", "School": "exam desk book", "Work": "boss memo task"}
WRONG = ["p3", "p19", "p40", "p65", "p80"]  # whose label is another one


def write_audited(folder, faults=True, posts=120):
    """Write posts.csv: wrong labels, a post twice, users on both sides, grey pictures of School."""
    rng, rows = np.random.default_rng(0), []
    for i in range(posts):
        label = list(WORDS)[i % 3]
        words = [
            *rng.choice(WORDS[label].split(), 2),
            *(f"w{x}" for x in rng.integers(100, 999, 3)),
        ]
        side = "test" if i % 4 == 1 else "train"
        shape = (16, 16, 1 if faults and label == "School" and i % 5 else 3)
        pixels = np.broadcast_to(rng.integers(0, 255, shape), (16, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        row = {"id": f"p{i}", "text": " ".join(words), "image": f"{i}.png", "label": label}
        user = f"both {i % 7}" if faults and i < 14 else f"{side} {i % 8}"
        rows.append(row | {"user": user, "split": side})
    for row in rows if faults else ():
        if row["id"] in WRONG:
            labels = list(WORDS)
            row["label"] = labels[(labels.index(row["label"]) + 1) % 3]
    if faults:
        rows.append(rows[5] | {"id": "again", "label": "Home"})  # p5 is in the test part
        rows[-1]["split"] = "train"
    return write_rows(rows, folder / "posts.csv")
