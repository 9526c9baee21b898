"""Fill in the Jinja templates of pages and drawings."""

from functools import cache
from typing import Any


def render(template: str, **values: Any) -> str:
    """Fill in a template of this package; but in .txt, values that are no `Markup` are escaped."""
    return str(_environment().get_template(template).render(values))


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sgmft", ""),
        autoescape=lambda name: not (name or "").endswith(".txt"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        percent=lambda x: f"{100 * x:.1f}\u00a0%",  # with a space that does not break
        count_of=lambda count, thing: f"{count:,} {thing}{'' if count == 1 else 's'}",
    )
    return environment
