"""What `pip install sgmft` weighs, and which of it the plain work imports, package by package.

    python benchmarks/install_size.py                  # the plain installation
    python benchmarks/install_size.py --extra e5       # with an extra

A clean environment is made, and `train`, `predict` and `evaluate` run in it on generated posts,
each in a process of its own that lists its modules at the end. Sizes are of the files that pip
records, without bytecode; pip and setuptools do not count. A Markdown table is printed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from clean_install import ROOT, install

COMMANDS = {
    "train": "train posts/posts.jsonl -o model",
    "predict": "predict model others/posts.jsonl -o out.csv",
    "evaluate": "evaluate model others/posts.jsonl -o evaluation",
}
SETS = ("posts", "others")  # to learn from, and to predict
SIZES = """
import json, re
from importlib.metadata import distributions, packages_distributions
found, modules = {}, {}
for module, names in packages_distributions().items():
    for name in names:
        modules.setdefault(name, []).append(module)
for each in distributions():
    name = each.metadata["Name"]
    files = [f for f in each.files or () if f.suffix != ".pyc"]
    size = sum(f.locate().stat().st_size for f in files if f.locate().exists())
    plain = [re.match(r"[\\w.-]+", x)[0] for x in each.requires or () if "extra ==" not in x]
    found[name] = {"bytes": size, "modules": modules.get(name, []), "needs": plain}
print(json.dumps(found))
"""
LOADED = """
import atexit, runpy, sys
atexit.register(lambda: print("LOADED", *{x.partition(".")[0] for x in sys.modules}))
sys.argv = ["sgmft", *sys.argv[1:]]
runpy.run_module("sgmft", {}, "__main__")
"""
TOOLS = {"pip", "setuptools", "wheel"}


def measure(python: Path, folder: Path) -> tuple[dict[str, dict], dict[str, set[str]]]:
    """Return what each distribution weighs, and the modules that each command imports."""
    sizes = json.loads(subprocess.check_output([python, "-c", SIZES], text=True))
    environment = {k: x for k, x in os.environ.items() if not k.startswith("PYTHON")}
    environment["SGMFT_CACHE"] = str(folder / "cache")
    loaded: dict[str, set[str]] = {}
    for seed, name in enumerate(SETS):
        words = [
            python,
            ROOT / "examples" / "sample.py",
            name,
            "--posts",
            "60",
            "--seed",
            str(seed),
        ]
        subprocess.run(words, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    for name, command in COMMANDS.items():
        words = [python, "-c", LOADED, *command.split()]
        done = subprocess.run(words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        assert done.returncode == 0, command
        loaded[name] = set(done.stdout.rpartition("LOADED")[2].split())
    return sizes, loaded


def normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extra", default="", help="extras, with commas between them")
    parser.add_argument("--least", type=float, default=1.0, help="megabytes of a line of its own")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        what = f"{ROOT}[{options.extra}]" if options.extra else str(ROOT)
        sizes, loaded = measure(install(Path(made) / "env", what), Path(made))
    rows = sorted(sizes.items(), key=lambda item: -item[1]["bytes"])
    rows = [(name, x) for name, x in rows if name not in TOOLS]
    total = sum(x["bytes"] for _, x in rows) / 1e6
    print("| package | MB | imported by | needed by |\n|---|--:|---|---|")
    print(f"| all {len(rows)} | {total:.0f} | | |")
    small = [x["bytes"] / 1e6 for _, x in rows if x["bytes"] < options.least * 1e6]
    for name, found in rows[: len(rows) - len(small)]:
        users = [c for c in COMMANDS if loaded[c] & set(found["modules"])]
        by = "all three" if len(users) == len(COMMANDS) else ", ".join(users)
        needing = [other for other, x in rows if normal(name) in map(normal, x["needs"])]
        print(f"| {name} | {found['bytes'] / 1e6:.1f} | {by} | {', '.join(sorted(needing))} |")
    print(f"| {len(small)} smaller ones | {sum(small):.1f} | | |")


if __name__ == "__main__":
    main()
