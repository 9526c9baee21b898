"""Install distributions in clean environments, and train, predict and evaluate there.

    python tests/clean_install.py dist/ --python python3.13

Only what `pip install sgmft` brings may be needed; `make dist` runs it for the wheel and the sdist.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "--version",
    "train posts/posts.jsonl -o model",
    "predict model posts/posts.jsonl -o out.csv --coverage 0.8",
    "evaluate model posts/posts.jsonl -o evaluation",
)
ABSENT = ("torch", "transformers", "sklearn", "pandas", "av", "ray", "pytest")  # of extras


def install(folder: Path, what: str, python: str = sys.executable, newest: bool = False) -> Path:
    """Make an environment in a folder, install there, and return its Python."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    inside = folder / "bin" / "python"
    versions = [] if newest else ["--constraint", ROOT / "constraints.txt"]
    command = [inside, "-m", "pip", "install", "--quiet", "--no-compile", *versions, what]
    subprocess.run(command, check=True)
    return inside


def check(python: Path, folder: Path) -> None:
    """Run the commands in a folder with an empty cache, and look at what they wrote."""
    script = f"import importlib.util as u; print([x for x in {ABSENT!r} if u.find_spec(x)])"
    found = subprocess.check_output([python, "-c", script], text=True).strip()
    assert found == "[]", f"the plain installation has {found}"
    subprocess.run([python, "-m", "pip", "check"], check=True)
    environment = {**os.environ, "SGMFT_CACHE": str(folder / "cache")}
    environment = {name: x for name, x in environment.items() if not name.startswith("PYTHON")}
    words = [python, ROOT / "examples" / "sample.py", "posts", "--posts", "60"]
    subprocess.run(words, cwd=folder, env=environment, check=True)
    for command in COMMANDS:
        print("sgmft", command, flush=True)
        words = [python.with_name("sgmft"), *command.split()]
        subprocess.run(words, cwd=folder, env=environment, check=True)
    with (folder / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60 and any(row["label"] for row in rows)
    assert not any(row["error"] for row in rows)
    assert (folder / "evaluation" / "report.html").stat().st_size > 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path, help="a distribution, or a folder of them")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to install for")
    parser.add_argument("--newest", action="store_true", help="newest versions of all packages")
    options = parser.parse_args()
    files = sorted(options.dist.iterdir()) if options.dist.is_dir() else [options.dist]
    assert files, f"there is nothing in {options.dist}"
    for file in files:
        with tempfile.TemporaryDirectory() as made:
            where = Path(made) / "env"
            python = install(where, str(file.resolve()), options.python, options.newest)
            check(python, Path(made))
        print(f"{file.name}: installs, trains, predicts and evaluates", flush=True)


if __name__ == "__main__":
    main()
