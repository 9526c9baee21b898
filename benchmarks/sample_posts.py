"""The generator of posts in examples/, for the other programs here."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from synthetic.sample import PLACES, write_sample, write_text

__all__ = ["PLACES", "write_sample", "write_text"]
