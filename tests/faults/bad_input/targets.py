"""All targets by name."""

from bad_input.pictures import PICTURES
from bad_input.prepared import PREPARED
from bad_input.tables import TABLES
from bad_input.target import Target
from bad_input.texts import TEXTS

TARGETS: dict[str, Target] = {x.name: x for x in (*TABLES, *TEXTS, *PICTURES, *PREPARED)}
