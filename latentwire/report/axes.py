"""What axes of pictures have in common."""

from __future__ import annotations

from typing import Any


def plain_logarithmic(axis: Any) -> None:
    """Ticks of a logarithmic axis (``panel.xaxis``) at 1, 2 and 5 times powers of ten, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(labelsize=8)  # long numbers stand close at the upper end
