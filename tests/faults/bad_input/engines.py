"""Where cases come from: random mutation of good input, hypothesis, atheris."""

import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Protocol

from bad_input.mutation import mutate
from bad_input.strategies import strategy
from bad_input.target import Target


class Case(Protocol):
    """The receiver of the cases."""

    def __call__(self, data: bytes) -> None:
        """Take the bytes of one; raise to have hypothesis look for a smaller one."""

    def end(self) -> None:
        """Finish: there are no more cases."""


def mutation(target: Target, case: Case, cases: int, seed: int, first: int = 0) -> None:
    """Mutate seeds, with a random generator for each case: the same numbers, the same bytes."""
    seeds = target.seeds()
    for number in range(first, first + cases):
        rng = random.Random(f"{seed} {target.name} {number}")
        case(mutate(seeds, target.words, rng))


def hypothesis(target: Target, case: Case, cases: int, seed: int, first: int = 0) -> None:
    """Generate input; the smallest that breaks a promise comes last."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    @seeded(seed * 1_000_003 + first)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(strategy(target))
    def run(data: bytes) -> None:
        case(data)

    run()


def atheris(target: Target, case: Case, cases: int, seed: int, first: int = 0) -> None:
    """Change further whatever reaches lines of the package that nothing reached before.

    The package's modules must have been imported with `instrument_imports`.
    """
    import atheris

    folder = Path(tempfile.mkdtemp(prefix="sgmft-bad-input-"))
    corpus, words = folder / "corpus", folder / "words.txt"
    corpus.mkdir()
    for number, data in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(data)
    short = (word for word in target.words if len(word) <= 32)
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in short)
    words.write_text("".join(f'"{word}"\n' for word in escaped))
    left = iter(range(cases - 1))

    def counted(data: bytes) -> None:
        case(data)
        if next(left, None) is None:
            shutil.rmtree(folder)
            case.end()  # libFuzzer would end the process and ask nobody
            os._exit(0)

    options = [f"-seed={seed * 1000 + first + 1}", "-max_len=4096", "-verbosity=0"]
    options += [f"-dict={words}", f"-artifact_prefix={folder}/", "-timeout=100"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], counted)
    atheris.Fuzz()


ENGINES = {"mutation": mutation, "hypothesis": hypothesis, "atheris": atheris}
