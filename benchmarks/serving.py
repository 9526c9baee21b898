"""Posts per second and waiting times of `sgmft serve`, with and without batching.

    python benchmarks/serving.py docs/figures [--table posts.jsonl --model model/] [--seconds 60]
        [--texts]

Sixteen clients (wrk, on this machine) each send one post after another as a form, to a server that
lets the model see up to 32 posts together and to one that lets it see them one by one, in turns.
Posts are those with a text and a picture of 210 generated ones, or the first 200 of a table; with
`--texts`, without their pictures. Prints a table and draws `serving.svg`; the servers' answers are
compared. The last line is what batching could bring at most: `compact`'s networks alone, in batches
on all processors, as if nothing else cost anything. Needs wrk: apt install wrk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx
import numpy as np
from export import SGMFT, sample
from matplotlib.figure import Figure
from measuring import spread

from sgmft import Post, read_posts
from sgmft.evaluation.figures import svg_text
from sgmft.features.encoders.registry import load_encoder

CLIENTS, MOST, ROUNDS = 16, 200, 2
SHARES = (50, 75, 90, 95, 99)
SERVERS = {"one by one": 1, "batched": 32}
COLOURS = {"one by one": "#999999", "batched": "#0072b2"}
BOUNDARY = "sgmft-benchmark"
SCRIPT = """
local bodies, at = {}, 0
function init(args)
  for i = 1, tonumber(args[2]) do
    local file = io.open(args[1] .. "/" .. i, "rb")
    bodies[i] = file:read("*a")
    file:close()
  end
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "multipart/form-data; boundary=" .. args[3]
end
function request()
  at = at % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[at])
end
function done(summary, latency)
  local parts = {}
  for _, share in ipairs({50, 75, 90, 95, 99}) do
    parts[#parts + 1] = latency:percentile(share) / 1000
  end
  local e = summary.errors
  io.write(string.format("\\nSAID %d %f %d %s\\n", summary.requests, summary.duration / 1e6,
    e.connect + e.read + e.write + e.status + e.timeout, table.concat(parts, " ")))
end
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--texts", action="store_true")
    options = parser.parse_args()
    options.figures.mkdir(parents=True, exist_ok=True)
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt install wrk.")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model, table = options.model, options.table
        if model is None or table is None:
            model, table = sample(work)
        shown = [post for post in read_posts(table) if post.text and post.images][:MOST]
        if options.texts:
            shown = [Post(post.text) for post in shown]
        bodies = write_bodies(shown, work / "bodies")
        rates: dict[str, list[float]] = {name: [] for name in SERVERS}
        waits: dict[str, list[list[float]]] = {name: [] for name in SERVERS}
        told: dict[str, np.ndarray] = {}
        for turn in range(ROUNDS):
            for name, batch in SERVERS.items():
                with serving(model, batch) as address:
                    told[name] = answers(address, bodies)
                    rate, wait = load(address, bodies, work, options.seconds)
                rates[name].append(rate)
                waits[name].append(wait)
                print(f"turn {turn + 1}, {name}: {rate:.1f} posts/s", file=sys.stderr, flush=True)
    report(rates, waits, float(np.abs(told["batched"] - told["one by one"]).max()))
    if not options.texts:
        limit = networks_alone([len(post.images) for post in shown])
        ratio = limit / median(rates["one by one"])
        print(f"The networks alone: {limit:.1f} posts/s, {ratio:.1f} times those one by one")
    draw(rates, waits, options.figures / "serving.svg")


def write_bodies(posts: Sequence[Post], folder: Path) -> list[Path]:
    """Each post as the body of a form, in a file."""
    folder.mkdir()
    files = []
    for i, post in enumerate(posts, 1):
        parts = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="text"\r\n\r\n{post.text}']
        body = parts[0].encode() + b"\r\n"
        for path in map(str, post.images):
            head = 'Content-Disposition: form-data; name="images"; filename="picture.jpg"'
            body += f"--{BOUNDARY}\r\n{head}\r\nContent-Type: image/jpeg\r\n\r\n".encode()
            body += Path(path).read_bytes() + b"\r\n"
        files.append(folder / str(i))
        files[-1].write_bytes(body + f"--{BOUNDARY}--\r\n".encode())
    return files


@contextmanager
def serving(model: Path, batch: int) -> Iterator[str]:
    """The address of a server that runs meanwhile."""
    command = [SGMFT, "serve", model, "--port", "0", "--no-page", "--batch", str(batch)]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = next((x for x in process.stderr if " at http://" in x), "")
    if not line:
        raise SystemExit("The server does not start.")
    sink = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
    try:
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait()
        sink.wait()


def answers(address: str, bodies: Sequence[Path]) -> np.ndarray:
    """Probabilities of the posts, asked for one after another."""
    rows = []
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    with httpx.Client(base_url=address, headers=headers, timeout=30) as client:
        for body in bodies:
            said = client.post("/v1/predict", content=body.read_bytes()).raise_for_status().json()
            rows.append(list(said["predictions"][0]["probabilities"].values()))
    return np.array(rows)


def load(
    address: str, bodies: Sequence[Path], work: Path, seconds: int
) -> tuple[float, list[float]]:
    """Posts per second, and milliseconds within which so many of a hundred answers come."""
    script = work / "post.lua"
    script.write_text(SCRIPT)
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "--timeout", "30s", "-s", script]
    command += [f"{address}/v1/predict", "--", bodies[0].parent, len(bodies), BOUNDARY]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    said = next(x for x in done.stdout.splitlines() if x.startswith("SAID")).split()[1:]
    if int(said[2]):
        raise SystemExit(f"{said[2]} requests failed.")
    return int(said[0]) / float(said[1]), list(map(float, said[3:]))


def networks_alone(pictures: Sequence[int]) -> float:
    """Posts per second with so many pictures each, if only the networks took time."""
    encoder, rng = load_encoder(), np.random.default_rng(0)
    size = encoder.info.image_size
    squares = rng.integers(0, 256, (sum(pictures), size, size, 3), np.uint8)
    encoder.encode_images(squares[:8], False)  # opens them
    began = time.perf_counter()
    encoder.encode_images(squares, False)
    return len(pictures) / (time.perf_counter() - began)


def report(
    rates: dict[str, list[float]], waits: dict[str, list[list[float]]], apart: float
) -> None:
    print("| server | posts/s | p50 | p95 | p99 |\n|---|---|---|---|---|")
    for name in SERVERS:
        p = [median(x) for x in zip(*waits[name], strict=True)]
        cells = " | ".join(f"{p[SHARES.index(share)]:.0f} ms" for share in (50, 95, 99))
        print(f"| {name} | {median(rates[name]):.1f} | {cells} |")
    ratio = spread(rates["batched"], rates["one by one"])
    print(f"\nPosts per second, batched / one by one: {ratio}; probabilities differ by {apart:.0e}")
    print(f"{CLIENTS} clients, {os.cpu_count()} processors, {json.dumps(rates)}")


def draw(rates: dict[str, list[float]], waits: dict[str, list[list[float]]], path: Path) -> None:
    """Waiting times, whose lines are named in the picture."""

    def drawn() -> Figure:
        figure = Figure(figsize=(5.6, 3.2), layout="constrained")
        axes = figure.subplots()
        for name in SERVERS:
            p = [median(x) for x in zip(*waits[name], strict=True)]
            axes.plot(range(len(SHARES)), p, "o-", color=COLOURS[name])
            axes.annotate(
                f"{name}: {median(rates[name]):.0f} posts/s",
                (len(SHARES) - 1, p[-1]),
                (0, 8),
                textcoords="offset points",
                ha="right",
            )
        axes.set_xticks(range(len(SHARES)), [f"{share} %" for share in SHARES])
        axes.set_xlabel("of the answers come within")
        axes.set_ylabel("milliseconds")
        axes.set_ylim(0, 1.15 * max(map(max, (wait for kind in waits.values() for wait in kind))))
        return figure

    path.write_text(svg_text(drawn, "sgmft"), "utf-8")


if __name__ == "__main__":
    main()
