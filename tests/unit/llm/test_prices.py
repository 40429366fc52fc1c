"""What a call costs."""

from __future__ import annotations

import pytest

from e2i import config
from e2i.llm.prices import PriceTable
from e2i.settings.sections import PriceSection


def table(**prices: tuple[float, float]) -> PriceTable:
    return PriceTable({name.replace("_", "-"): PriceSection(input=cost[0], output=cost[1]) for name, cost in prices.items()})


def test_the_longest_prefix_counts() -> None:
    prices = table(claude=(1, 1), claude_opus_4=(15, 75), claude_opus_4_5=(5, 25))
    cost = prices.cost_usd(["claude-opus-4-5-20251101"], input_tokens=1_000_000, output_tokens=100_000)
    assert cost == pytest.approx(5 + 2.5)
    assert prices.cost_usd(["claude-opus-4-1"], input_tokens=1_000_000, output_tokens=0) == pytest.approx(15)
    assert prices.cost_usd(["claude-haiku-9"], input_tokens=1_000_000, output_tokens=0) == pytest.approx(1)


def test_a_prefix_ends_where_a_word_ends() -> None:
    prices = table(gpt_4=(30, 60))
    assert prices.price_of("gpt-4-0613") is not None
    assert prices.price_of("gpt-4") is not None
    assert prices.price_of("gpt-4o") is None
    assert prices.price_of("my-gpt-4") is None


def test_an_unknown_model_has_an_unknown_cost_and_not_none() -> None:
    assert table(a=(1, 1)).cost_usd(["b"], input_tokens=5, output_tokens=5) is None


def test_unknown_tokens_make_the_cost_unknown() -> None:
    assert table(a=(1, 1)).cost_usd(["a"], input_tokens=None, output_tokens=5) is None
    assert table(a=(1, 1)).cost_usd(["a"], input_tokens=5, output_tokens=None) is None


def test_a_free_model_costs_zero_and_that_is_known() -> None:
    assert table(SmolLM2=(0, 0)).cost_usd(["SmolLM2-135M-Instruct"], input_tokens=5, output_tokens=5) == 0.0


def test_the_answering_models_name_counts_before_the_configured_one() -> None:
    prices = table(small=(1, 1), large=(100, 100))
    assert prices.cost_usd(["large-2026", "small"], input_tokens=10_000, output_tokens=0) == pytest.approx(1.0)
    assert prices.cost_usd(["nobody", "small"], input_tokens=10_000, output_tokens=0) == pytest.approx(0.01)
    assert prices.cost_usd([None, "small"], input_tokens=10_000, output_tokens=0) == pytest.approx(0.01)


@pytest.mark.parametrize(("model", "dollars"), [("claude-sonnet-4-6", 3.0), ("claude-opus-4-1", 15.0), ("claude-opus-4-7", 5.0)])
def test_the_shipped_table_knows_the_generations_of_a_family(model: str, dollars: float) -> None:
    assert PriceTable(config.load().llm.prices).cost_usd([model], input_tokens=1_000_000, output_tokens=0) == pytest.approx(dollars)
