"""Figures as the report writes them."""

from __future__ import annotations

import math

NOTHING = "–"
_MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"


def percent(share: float) -> str:
    """0.1234 -> "12.3", or "–" for what is no number."""
    return f"{100 * share:.1f}" if math.isfinite(share) else NOTHING


def signed(share: float) -> str:
    """0.1234 -> "+12.3", in percentage points; what rounds to nothing has no sign."""
    text = f"{100 * share:+.1f}" if math.isfinite(share) else NOTHING
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", _MINUS)


def p_value(value: float) -> str:
    """0.0123 -> "p = 0.012"."""
    if math.isnan(value):
        return "p undefined"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def count(number: int | None) -> str:
    """1234567 -> "1.2 M"; nothing for None."""
    if number is None:
        return ""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * unit:
            value = number / unit
            return f"{value:.{0 if value >= 99.5 else 1}f}{SPACE}{name}"
    return str(number)


def duration(seconds: float | None) -> str:
    """83.2 -> "1 min 23 s"; nothing for None."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest}{SPACE}s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes}{SPACE}min {rest:02}{SPACE}s"
    return f"{hours}{SPACE}h {minutes:02}{SPACE}min"
