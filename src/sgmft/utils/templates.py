"""Fill in the Jinja templates of pages and drawings."""

from functools import cache
from typing import Any


def render(template: str, **values: Any) -> str:
    """Fill in a template of this package; every value is escaped unless it is `Markup`."""
    return str(_environment().get_template(template).render(values))


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sgmft", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # 0.1234 becomes "12.3 %", with a space that does not break.
    environment.filters.update(percent=lambda x: f"{100 * x:.1f}\u00a0%", count_of=_count_of)
    return environment


def _count_of(number: int, thing: str) -> str:
    """Format 1, "post" as "1 post", and 1200, "post" as "1,200 posts"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
