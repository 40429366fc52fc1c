"""What a call costs, from the price table of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from e2i.settings.sections import PriceSection

_PER = 1_000_000


class PriceTable:
    """US dollars per million tokens, by model.

    The longest entry that the model's name begins with counts, where the name ends or goes on with a sign: `gpt-4` is the price
    of `gpt-4-0613` and not of `gpt-4o`.
    """

    def __init__(self, prices: Mapping[str, PriceSection]) -> None:
        self._prices = sorted(prices.items(), key=lambda row: -len(row[0]))

    def price_of(self, model: str) -> PriceSection | None:
        """The entry for a model; None when there is none."""
        for prefix, price in self._prices:
            rest = model[len(prefix) :]
            if model.startswith(prefix) and not rest[:1].isalnum():
                return price
        return None

    def cost_usd(self, models: Iterable[str | None], *, input_tokens: int | None, output_tokens: int | None) -> float | None:
        """US dollars by the first of `models` that has a price; None, not 0, when price or tokens are unknown."""
        price = next((found for name in models if name and (found := self.price_of(name))), None)
        if price is None or input_tokens is None or output_tokens is None:
            return None
        return (input_tokens * price.input + output_tokens * price.output) / _PER
