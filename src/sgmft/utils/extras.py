"""Packages that only some of the work needs, in the extras of this one."""

from collections.abc import Iterator
from contextlib import contextmanager

from sgmft.errors import SgmftError


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Raise SgmftError, with the extra that `what` needs, where an import in the block fails."""
    try:
        yield
    except ImportError as error:
        raise SgmftError(
            f"{what} needs packages that are not installed: pip install 'sgmft[{extra}]' ({error})."
        ) from error
