"""Where cases come from: random mutation of good input, hypothesis, atheris.

The same random generator gives the same bytes. Hypothesis's input is well-formed more often. An
engine calls `case` with the bytes of each case, which raises to have hypothesis look for a smaller
one, and `case.end()` where it ends the process itself.
"""

import csv
import io
import json
import os
import random
import shutil
import struct
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from bad_input.contents import BETWEEN
from bad_input.tables import WORDS
from hypothesis import HealthCheck, Phase, given, seed as seeded, settings, strategies as st

MOST = 1 << 16  # bytes of a case
_NUMBERS = (0, 1, 7, 127, 128, 255, 256, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


_STEPS = ("flip", "set", "number", "cut", "leave out", "repeat", "splice", "insert", *["word"] * 3)


def mutate(seeds, words, rng):
    """Return one of the seeds with one to eight mutations, mostly few."""
    data = bytearray(rng.choice(seeds))
    for _ in range(1 + min(int(rng.expovariate(0.7)), 7)):
        _change(data, rng.choice(_STEPS), seeds, words, rng)
    return bytes(data[:MOST])


def _place(data, rng):
    """Return a random position; often near the start or the end, where headers are."""
    end = len(data)
    return rng.choice((rng.randint(0, end), min(end, rng.randint(0, 64)), max(0, end - 40)))


def _change(data, step, seeds, words, rng):
    match step:
        case "flip":
            for _ in range(rng.choice((1, 1, 2, 8))):
                if data:
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case "set" if data:
            data[min(_place(data, rng), len(data) - 1)] = rng.choice((0, 0xFF, rng.randrange(256)))
        case "number":  # a length, a size or a count that is absurd
            kind = rng.choice((">I", "<I", ">H", "<H", ">Q", "<Q"))
            size = struct.calcsize(kind)
            at = _place(data, rng)
            number = rng.choice(_NUMBERS) & ((1 << 8 * size) - 1)
            data[at : at + size] = struct.pack(kind, number)
        case "cut":
            del data[_place(data, rng) :]
        case "leave out":
            at = _place(data, rng)
            del data[at : at + rng.choice((1, 2, 4, rng.randint(1, 200)))]
        case "repeat":
            at = rng.randint(0, len(data))
            part = data[at : at + rng.randint(1, 60)]
            data[at:at] = part * rng.choice((1, 2, 3, rng.randint(1, 100)))
        case "splice":
            other = rng.choice(seeds)
            start = rng.randint(0, len(other))
            at = rng.randint(0, len(data))
            data[at : at + rng.choice((0, 0, 30))] = other[start : start + rng.randint(0, 400)]
        case "insert":
            at = _place(data, rng)
            data[at:at] = rng.randbytes(rng.randint(1, 12))
        case "word" if words:
            at = _place(data, rng)
            data[at : at + rng.choice((0, 0, 1, 6))] = rng.choice(words) * rng.choice((1, 1, 1, 3))


Bytes = st.SearchStrategy[bytes]
_odd = st.sampled_from([word.decode("utf-8", "replace") for word in WORDS if len(word) < 400])
_texts = st.text(st.characters(), max_size=12) | _odd  # lone surrogates among them
_names = st.sampled_from(["text", "image", "images", "file_name", "id", "label", "user"]) | _texts
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=6,
)
_records = st.lists(
    st.dictionaries(_names, _values, max_size=5).map(lambda record: {"text": "a"} | record)
    | _values,
    max_size=5,
)
_choices = st.fixed_dictionaries({"choices": st.lists(_values, max_size=3)}) | _values
_results = st.lists(st.fixed_dictionaries({"from_name": _texts, "value": _choices}) | _values)
_tasks = st.lists(
    st.fixed_dictionaries(
        {"data": st.dictionaries(_names, _values, max_size=4)},
        optional={
            "id": _values,
            "annotations": st.lists(st.fixed_dictionaries({"result": _results}), max_size=3),
        },
    )
    | st.dictionaries(_names | st.just("annotation_id"), _choices, max_size=4),
    max_size=5,
)


def strategy(target):
    """Bytes for a target: generated for it, or mutated good bytes."""
    mutated = st.integers(0, 2**48).map(
        lambda number: mutate(target.seeds(), target.words, random.Random(number))
    )
    made = _MADE.get(target.name)
    return mutated if made is None else made | mutated


def _delimited(mark):
    rows = st.lists(st.lists(_texts, max_size=5), max_size=6)
    codes = st.sampled_from(["utf-8", "utf-8-sig", "gb18030", "utf-16"])

    def table(header, rows, code):
        stream = io.StringIO()
        csv.writer(stream, delimiter=mark).writerows([header, *rows])
        return stream.getvalue().encode(code, "surrogatepass" if code == "utf-8" else "replace")

    return st.builds(table, st.lists(_names, min_size=1, max_size=5), rows, codes)


def _lines(records):
    return "\n".join(json.dumps(record) for record in records).encode()


def _parquet(columns):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["a", "b"], **columns}), buffer)
    return buffer.getvalue()


def _column(kind):
    return st.lists(st.none() | kind, min_size=2, max_size=2)


_clean = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_spans = st.timedeltas(timedelta(-30_000), timedelta(30_000))
_columns = st.one_of(
    *map(_column, (_clean, st.binary(max_size=9), st.integers(-(2**63), 2**63 - 1), st.floats())),
    *map(_column, (st.dates(), st.datetimes(), st.times(), _spans, st.booleans())),
    _column(st.lists(_clean, max_size=3)),
    _column(st.lists(st.integers(0, 9), max_size=3)),
    _column(st.fixed_dictionaries({"path": _clean, "bytes": st.none() | st.binary(max_size=4)})),
    _column(st.decimals(-1000, 1000, places=2)),
)
_MADE = {
    "tables .csv": _delimited(",") | _delimited(";"),
    "tables .tsv": _delimited("\t"),
    "tables .jsonl": _records.map(_lines),
    "tables .json": st.one_of(_records, _tasks).map(lambda x: json.dumps(x).encode()),
    "tables .parquet": st.dictionaries(
        st.sampled_from(["text", "image", "images", "id", "label"]) | _clean, _columns, max_size=4
    ).map(_parquet),
    "texts": st.builds(
        lambda how, text: how + text.encode("utf-8", "surrogatepass"),
        st.binary(min_size=2, max_size=2),
        st.text(st.characters(), max_size=80) | st.lists(_texts, max_size=12).map("".join),
    ),
    "whole posts": st.builds(
        lambda text, files: BETWEEN.join([text.encode("utf-8", "surrogatepass"), *files]),
        _texts,
        st.lists(st.binary(max_size=40), max_size=3),
    ),
}


def mutation(target, case, cases, seed, first=0):
    """Mutate seeds, with a random generator for each case: the same numbers, the same bytes."""
    seeds = target.seeds()
    for number in range(first, first + cases):
        rng = random.Random(f"{seed} {target.name} {number}")
        case(mutate(seeds, target.words, rng))


def hypothesis(target, case, cases, seed, first=0):
    """Generate input; the smallest that breaks a promise comes last."""

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
    def run(data):
        case(data)

    run()


def atheris(target, case, cases, seed, first=0):
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

    def counted(data):
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
