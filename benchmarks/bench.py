"""Run the benchmarks of speed and write their table into docs/performance.md: `make bench`.

    python benchmarks/bench.py docs/performance.md

Each program runs in a process of its own; one that fails leaves the document as it was.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent
BEGIN, END = "<!-- written by make bench -->\n", "<!-- end of make bench -->\n"
PROGRAMS = (
    "clip_features.py",
    "compact_features.py",
    "compact_pictures.py",
    "rank_one.py",
    "training.py",
    "experts.py",
    "answering.py",
    "export.py",
    "growth.py",
    "library_encoders.py",
    "commands.py",
)
GROWTH = [tempfile.gettempdir(), "--most", "10000"]  # the figure of the docs has 100,000 posts


def processor() -> str:
    """What the figures were measured on."""
    name, flags = platform.machine(), ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        name = value if key == "model name" else name
        flags = value if key == "flags" else flags
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    kinds = ", ".join(flag for flag in known if flag in flags.split())
    return f"{torch.get_num_threads()} threads on {name} ({kinds}), torch {torch.__version__}"


def main(document: Path) -> None:
    text = document.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    if not after:
        sys.exit(f"{document} has no place for the table: {BEGIN.strip()} ... {END.strip()}")
    began, rows = time.monotonic(), []
    for program in PROGRAMS:
        words = GROWTH if program == "growth.py" else []
        print(f"# {program}", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, HERE / program, *words], stdout=subprocess.PIPE, text=True, check=True
        )
        rows += [line for line in done.stdout.splitlines() if line.startswith("| ")]
        print(done.stdout, end="", flush=True)
    minutes = (time.monotonic() - began) / 60
    told = f"{processor()}; all programs together {minutes:.0f} minutes."
    head = "| work | against | found | wanted | agreement |\n|---|---|---|---|---|"
    table = "\n".join([head, *rows, "", told, ""])
    document.write_text(before + BEGIN + table + END + after, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
