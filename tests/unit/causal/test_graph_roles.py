"""The study's roles against its graph."""

from __future__ import annotations

import polars as pl
import pytest

from e2i.causal.graph import adjustment_by_graph, front_door_of
from e2i.causal.router import identify
from e2i.domain.study import EffectSpec
from e2i.errors import NotIdentified

COLUMNS = frozenset(("calls", "nrx", "decile", "reach", "before", "other", "tier", "spare", "region"))
BASE = ("decile -> calls", "decile -> nrx", "calls -> nrx")


def asked(*edges: str, **roles: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    effect = EffectSpec(treatment="calls", outcome="nrx", edges=edges, **roles)  # type: ignore[arg-type]
    return adjustment_by_graph(effect, observed=COLUMNS, design="cross_section")


@pytest.mark.parametrize(
    ("role", "edge", "path"),
    [
        ("negative_controls", "calls -> other", "calls -> other"),
        ("negative_controls", "nrx -> other", "calls -> nrx -> other"),
        ("pre_outcomes", "calls -> other", "calls -> other"),
        ("negative_exposures", "other -> nrx", "other -> nrx"),
    ],
)
def test_a_control_that_the_graph_contradicts_is_refused_with_the_path(role: str, edge: str, path: str) -> None:
    with pytest.raises(NotIdentified, match=f"^effect.{role}: {path}: ") as caught:
        asked(*BASE, edge, **{role: ("other",)})
    assert f"Take `other` out of `{role}`" in str(caught.value)


def test_an_exposure_that_works_through_the_treatment_alone_is_a_fair_negative_exposure() -> None:
    assert asked(*BASE, "other -> calls", negative_exposures=("other",))[0] == ("decile",)


def test_a_front_door_study_has_its_controls_checked_too() -> None:
    effect = EffectSpec(
        treatment="calls", outcome="nrx", edges=("calls <-> nrx", "calls -> reach -> nrx", "reach -> other"), negative_controls=("other",)
    )
    with pytest.raises(NotIdentified, match="calls -> reach -> other"):
        front_door_of(effect, observed=COLUMNS)


def test_columns_that_close_no_path_are_told() -> None:
    told = " ".join(asked(*BASE, "tier -> calls", "spare -> region", confounders=("decile", "tier", "spare"))[1])
    assert "`tier` is adjusted for, and in the graph moves the treatment only" in told
    assert "`spare` is adjusted for, and in the graph has to do with neither" in told
    assert "`decile` is adjusted for" not in told


def test_a_control_that_a_cause_of_treatment_moves_is_told_with_what_would_mend_it() -> None:
    told = " ".join(asked(*BASE, "tier -> calls", "tier -> other", confounders=("decile",), negative_controls=("other",))[1])
    assert "calls <- tier -> other" in told
    assert "Adjust for `tier` too" in told
    quiet = asked(*BASE, "tier -> calls", "tier -> other", confounders=("decile", "tier"), negative_controls=("other",))[1]
    assert not any("moves with treatment" in text for text in quiet)


def test_what_would_have_to_be_measured_is_named_with_the_column_that_may_be_meant() -> None:
    with pytest.raises(NotIdentified, match="Measure `decil` and adjust for `decil`") as caught:
        asked("decil -> calls", "decil -> nrx", "calls -> nrx", confounders=("tier",))
    assert "Did you mean `decile`?" in str(caught.value)


def test_a_name_in_other_letters_is_recognised() -> None:
    with pytest.raises(NotIdentified, match="Did you mean `CALLS`"):
        asked("decile -> CALLS", "decile -> nrx", "CALLS -> nrx")


def test_a_column_alone_among_the_edges_is_a_node_without_arrows() -> None:
    frame = pl.DataFrame({"calls": [0, 1] * 30, "nrx": list(range(60)), "decile": [1.0, 2.0, 3.0] * 20, "spare": [0.5, 1.5] * 30})
    effect = EffectSpec(treatment="calls", outcome="nrx", edges=(*BASE, "spare"), confounders=("decile", "spare"))
    assert any("`spare` is adjusted for" in reason for reason in identify(effect, frame).reasons)


@pytest.mark.parametrize(
    ("edges", "path"),
    [
        (("calls -> reach", "nrx -> reach"), "calls -> nrx -> reach|nrx -> reach"),
        (("calls -> reach", "reach <-> nrx"), "calls -> reach <-> nrx"),
        (("calls -> reach -> nrx",), "calls -> reach -> nrx"),
        (("calls <-> reach", "reach <-> nrx"), "calls <-> reach <-> nrx"),
    ],
)
def test_rows_selected_on_an_effect_or_a_collider_are_refused_with_the_path(edges: tuple[str, ...], path: str) -> None:
    effect = EffectSpec(treatment="calls", outcome="nrx", edges=(*BASE, *edges), confounders=("decile",))
    with pytest.raises(NotIdentified, match=path) as caught:
        adjustment_by_graph(effect, observed=COLUMNS, design="cross_section", selected=("reach",))
    assert "`reach` has one value in these rows" in str(caught.value)
    assert adjustment_by_graph(effect, observed=COLUMNS, design="cross_section")[0] == ("decile",)


@pytest.mark.parametrize("edge", ["calls -> reach", "reach -> calls", "reach -> nrx", "decile -> reach"])
def test_rows_selected_on_a_harmless_column_are_taken(edge: str) -> None:
    effect = EffectSpec(treatment="calls", outcome="nrx", edges=(*BASE, edge), confounders=("decile",))
    assert adjustment_by_graph(effect, observed=COLUMNS, design="cross_section", selected=("reach",))[0] == ("decile",)


def test_rows_that_were_selected_on_a_collider_are_seen_in_the_data() -> None:
    frame = pl.DataFrame({"calls": [0, 1] * 30, "nrx": list(range(60)), "decile": [1.0, 2.0, 3.0] * 20, "reach": [1] * 60})
    effect = EffectSpec(treatment="calls", outcome="nrx", edges=(*BASE, "calls -> reach", "nrx -> reach"), confounders=("decile",))
    with pytest.raises(NotIdentified, match="`reach` has one value in these rows"):
        identify(effect, frame)
    assert identify(effect, frame.with_columns(reach=pl.col("calls"))).adjustment == ("decile",)
