"""Whom to treat: the best tree of at most two questions, and what it is worth on rows that did not choose it.

Athey and Wager (2021), "Policy learning with observational data"; Zhou, Athey and Wager (2023), "Offline multi-action policy
learning": the tree maximises the sum of doubly robust scores, less cost, over those it treats. All trees over a grid of
questions are compared exactly, from sums over pairs of questions.

Luedtke and van der Laan (2016), "Statistical inference for the mean outcome under a possibly non-unique optimal treatment
strategy": the value is judged part by part, each part by the tree of the parts before it. Where nothing is to be gained,
ordinary cross-fitting makes the parts' values agree too well, and its 95 % interval covers 91 %.

A tree stands only where it gains clearly more than everybody or nobody (Breiman, Friedman, Olshen and Stone 1984 take one standard
error). The best of many trees always gains on the rows that chose it: where the effect is the same for all it leaves people out for
nothing, the more the fewer rows there are, and the parts' values would fall short of what the tree of all rows is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import reduce

import numpy as np
import polars as pl

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.cate.calibration import split
from e2i.causal.cate.dr_learner import Scores
from e2i.causal.cate.sums import critical_value, standard_error
from e2i.causal.encoding import numeric
from e2i.causal.groupings import cuts_of, group
from e2i.domain.disclosure import visible_counts
from e2i.domain.segments import Interval, PolicyLeaf, PolicyValue

_CUTS = 12
_MOST_LEVELS = 12
_MOST_QUESTIONS = 120
_CHUNK = 100_000
_BISECTIONS = 40
_PARTS = 10
_UNJUDGED = 0.4
"""of the parts: their rows are too few to choose a tree like that of all rows"""
_CLEARLY = 1.5
"""standard errors by which a tree must gain more than everybody or nobody"""
MINIMUM_LEAF_SHARE = 0.02
MINIMUM_LEAF = 20

Clause = tuple[int, bool]
"""(question, the answer)"""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Yes/no questions about modifiers; `answers` has shape (n, q)."""

    yes: tuple[str, ...]
    no: tuple[str, ...]
    answers: BoolArray


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Leaves as clauses that must all hold, and whether its people are treated."""

    leaves: tuple[tuple[tuple[Clause, ...], bool], ...]

    def treats(self, answers: BoolArray) -> BoolArray:
        """Who is treated, shape (m,), for answers of shape (m, q)."""
        out = np.zeros(len(answers), dtype=np.bool_)
        for clauses, treat in self.leaves:
            if treat:
                out |= inside(clauses, answers)
        return out


@dataclass(frozen=True, kw_only=True)
class Learned:
    """The tree of all rows, and per row what the tree of the other folds decides."""

    tree: Tree
    questions: Questions
    decided: BoolArray
    """shape (n,), by a tree that did not see the row"""
    judged: BoolArray
    """shape (n,), rows whose tree saw earlier parts alone: on them a value is inferred"""


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """Gain and rows by question and by pair of questions, answered yes."""

    gain: FloatArray
    rows: FloatArray
    pair_gain: FloatArray
    pair_rows: FloatArray
    total: float
    count: float

    def plus(self, other: _Sums, *, sign: float = 1.0) -> _Sums:
        return _Sums(**{each.name: getattr(self, each.name) + sign * getattr(other, each.name) for each in fields(_Sums)})


def ask(frame: pl.DataFrame, modifiers: Sequence[str]) -> Questions:
    """Thresholds at 12 quantiles of each number, one question per level of each category; at most 120, shared evenly.

    Raises SchemaMismatch or DataError for a column that is neither number, date nor text.
    """
    yes: list[str] = []
    no: list[str] = []
    answers: list[BoolArray] = []
    most = max(2, min(_CUTS, _MOST_QUESTIONS // max(len(modifiers), 1)))
    for name in modifiers:
        series = frame[name]
        is_number = series.dtype.is_numeric() or series.dtype in (pl.Date, pl.Datetime)
        values = numeric(series) if is_number else None
        if values is not None and len(np.unique(values[~np.isnan(values)])) > 2:
            for cut in cuts_of(values, most=most):
                yes.append(f"{name} above {_told(cut, series.dtype)}")
                no.append(f"{name} at most {_told(cut, series.dtype)}" + (" or missing" if np.isnan(values).any() else ""))
                answers.append(values > cut)
            continue
        found = group(series)
        sizes = np.bincount(found.codes, minlength=len(found.labels))
        levels = np.argsort(-sizes, kind="stable")[: min(_MOST_LEVELS, most)]
        for level in levels if len(found.labels) > 2 else levels[:1] if len(found.labels) == 2 else ():
            yes.append(f"{name} is {found.labels[level]}")
            no.append(f"{name} is not {found.labels[level]}")
            answers.append(found.codes == level)
    matrix = np.column_stack(answers)[:, :_MOST_QUESTIONS] if answers else np.empty((frame.height, 0), dtype=np.bool_)
    return Questions(yes=tuple(yes[:_MOST_QUESTIONS]), no=tuple(no[:_MOST_QUESTIONS]), answers=matrix)


def learn(reward: FloatArray, scores: Scores, questions: Questions, *, budget_share: float | None = None, seed: int) -> Learned:
    """The best tree on all rows, and on each part's rows the decisions of the tree that the parts before it chose.

    The first two fifths of the parts are decided by all others and not judged.

    Parameters
    ----------
    reward : shape (n,), what treating the row brings, cost taken off
    budget_share : at most this share of people is treated, in (0, 1]
    """
    count = len(reward) if scores.cluster is None else len(np.unique(scores.cluster))
    size = min(_PARTS, count)
    folds = split(len(reward), scores.cluster, seed=seed, folds=size)
    parts = [_sums(reward, scores.weights, questions.answers, np.flatnonzero(folds == fold)) for fold in range(size)]
    whole = reduce(_Sums.plus, parts)
    decided, first = np.zeros(len(reward), dtype=np.bool_), max(1, int(size * _UNJUDGED)) if size > 1 else 0

    def tree_of(known: _Sums, rows: BoolArray) -> Tree:
        tree, is_everybody = _best(known, budget_share), known.total > 0
        if is_everybody and budget_share is not None and budget_share < 1.0:
            return tree
        index = np.flatnonzero(rows)
        return (
            tree if _is_clear(tree, reward[index], scores.part(index), questions.answers[index], over=is_everybody) else _one(is_everybody)
        )

    for fold, part in enumerate(parts):
        rows, is_judged = np.flatnonzero(folds == fold), fold >= max(first, 1)
        known = reduce(_Sums.plus, parts[:fold]) if is_judged else whole.plus(part, sign=-1.0)
        decided[rows] = tree_of(known, folds < fold if is_judged else folds != fold).treats(questions.answers[rows])
    tree = tree_of(whole, folds >= 0)
    return Learned(tree=tree, questions=questions, decided=decided, judged=folds >= first)


def value(policy: str, rewards: FloatArray, *, share: float, current: FloatArray, scores: Scores) -> PolicyValue:
    """Value per person of a policy, and its gain over present practice, paired row by row.

    Parameters
    ----------
    rewards : shape (n,), doubly robust reward of the policy's decision on each row
    share : of people treated
    current : shape (n,), rewards of present practice
    """
    mass = float(scores.weights.sum())
    return PolicyValue(
        policy=policy,
        value=mean_interval(scores.weights * rewards, scores, mass),
        share=share,
        gain_over_current=mean_interval(scores.weights * (rewards - current), scores, mass),
    )


def mean_interval(contributions: FloatArray, scores: Scores, mass: float, *, times: float = 1.0) -> Interval:
    """Sum of weighted contributions over `mass`, times a count, with its interval."""
    mean = float(contributions.sum()) / mass
    error = float(standard_error(((contributions - scores.weights * mean) / mass)[:, None], scores.cluster)[0])
    half = critical_value(scores.cluster)[0] * error
    return Interval(estimate=times * mean, low=times * (mean - half), high=times * (mean + half))


def describe(learned: Learned, weights: FloatArray) -> tuple[PolicyLeaf, ...]:
    """The leaves in words; shares that would give a small cell away are None."""
    questions = learned.questions
    members = [inside(clauses, questions.answers) for clauses, _ in learned.tree.leaves]
    counts = visible_counts({str(place): int(each.sum()) for place, each in enumerate(members)})
    return tuple(
        PolicyLeaf(
            conditions=tuple(questions.yes[place] if answer else questions.no[place] for place, answer in clauses),
            treat=treat,
            share=None if counts[str(number)] is None else float(weights @ members[number] / weights.sum()),
        )
        for number, (clauses, treat) in enumerate(learned.tree.leaves)
    )


def inside(clauses: tuple[Clause, ...], answers: BoolArray) -> BoolArray:
    """Rows for which all clauses hold, shape (m,)."""
    out = np.ones(len(answers), dtype=np.bool_)
    for question, answer in clauses:
        out &= answers[:, question] == answer
    return out


def _sums(reward: FloatArray, weights: FloatArray, answers: BoolArray, rows: IntArray) -> _Sums:
    size = answers.shape[1]
    pair_gain, pair_rows = np.zeros((size, size)), np.zeros((size, size))
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        yes = answers[part].astype(np.float64)
        pair_rows += yes.T @ yes
        pair_gain += (yes * (weights[part] * reward[part])[:, None]).T @ yes
    return _Sums(
        gain=np.diag(pair_gain).copy(),
        rows=np.diag(pair_rows).copy(),
        pair_gain=pair_gain,
        pair_rows=pair_rows,
        total=float(weights[rows] @ reward[rows]),
        count=float(len(rows)),
    )


def _one(treat: bool) -> Tree:
    """Everybody, or nobody."""
    return Tree(leaves=(((), treat),))


def _is_clear(tree: Tree, reward: FloatArray, scores: Scores, answers: BoolArray, *, over: bool) -> bool:
    """A tree gains clearly more than everybody (`over`) or nobody on the rows that chose it."""
    changed = tree.treats(answers).astype(np.float64) - over
    gain = mean_interval(scores.weights * changed * reward, scores, float(scores.weights.sum()))
    return gain.estimate > _CLEARLY * (gain.high - gain.estimate) / critical_value(scores.cluster)[0]


def _best(sums: _Sums, budget_share: float | None) -> Tree:
    """The best tree; under a budget the lowest price of treatment at which it treats few enough."""
    tree, treated = _search(sums, price=0.0)
    if budget_share is None or treated <= budget_share * sums.count:
        return tree
    low, high = 0.0, float(np.abs(sums.pair_gain).max(initial=abs(sums.total))) / MINIMUM_LEAF
    best = Tree(leaves=(((), False),))
    for _ in range(_BISECTIONS):
        price = (low + high) / 2
        tree, treated = _search(sums, price=price)
        if treated <= budget_share * sums.count:
            best, high = tree, price
        else:
            low = price
    return best


@dataclass(frozen=True, kw_only=True)
class _Side:
    """Everybody who answers each first question alike: gain and rows, and the same split by each second question."""

    answer: bool
    gain: FloatArray
    rows: FloatArray
    yes_gain: FloatArray
    yes_rows: FloatArray
    no_gain: FloatArray
    no_rows: FloatArray

    def best(self, leaf: float) -> tuple[FloatArray, IntArray]:
        """Largest gain by first question, and the second question that reaches it (-1: none needed)."""
        first = np.arange(len(self.gain))
        plain = np.where(self.rows >= leaf, np.maximum(self.gain, 0.0), -np.inf)
        worth = np.maximum(self.yes_gain, 0.0) + np.maximum(self.no_gain, 0.0)
        worth[(self.yes_rows < leaf) | (self.no_rows < leaf)] = -np.inf
        second = worth.argmax(axis=1)
        top = worth[first, second]
        is_better = top > plain * (1.0 + 1e-9)
        return np.where(is_better, top, plain), np.where(is_better, second, -1)

    def leaves(self, first: int, second: int) -> list[tuple[tuple[Clause, ...], float, float]]:
        """(clauses, gain, rows) of the leaves on this side."""
        if second < 0:
            return [(((first, self.answer),), float(self.gain[first]), float(self.rows[first]))]
        return [
            (((first, self.answer), (second, True)), float(self.yes_gain[first, second]), float(self.yes_rows[first, second])),
            (((first, self.answer), (second, False)), float(self.no_gain[first, second]), float(self.no_rows[first, second])),
        ]


def _sides(sums: _Sums, price: float) -> tuple[_Side, _Side]:
    gain, total = sums.gain - price * sums.rows, sums.total - price * sums.count
    pair = sums.pair_gain - price * sums.pair_rows
    rows, both = sums.rows, sums.pair_rows
    yes = _Side(answer=True, gain=gain, rows=rows, yes_gain=pair, yes_rows=both, no_gain=gain[:, None] - pair, no_rows=rows[:, None] - both)
    return yes, _Side(
        answer=False,
        gain=total - gain,
        rows=sums.count - rows,
        yes_gain=gain[None, :] - pair,
        yes_rows=rows[None, :] - both,
        no_gain=total - gain[:, None] - gain[None, :] + pair,
        no_rows=sums.count - rows[:, None] - rows[None, :] + both,
    )


def _search(sums: _Sums, *, price: float) -> tuple[Tree, float]:
    """Exhaustive over first and second questions; and the rows that the tree treats."""
    total = sums.total - price * sums.count
    alone = _one(total > 0), sums.count if total > 0 else 0.0
    if not len(sums.gain):
        return alone
    leaf = max(float(MINIMUM_LEAF), MINIMUM_LEAF_SHARE * sums.count)
    sides = _sides(sums, price)
    found = [side.best(leaf) for side in sides]
    worth = found[0][0] + found[1][0]
    first = int(worth.argmax())
    if worth[first] <= max(total, 0.0) * (1.0 + 1e-9):
        return alone
    leaves = [item for side, (_, second) in zip(sides, found, strict=True) for item in side.leaves(first, int(second[first]))]
    return Tree(leaves=tuple((clauses, gain > 0) for clauses, gain, _ in leaves)), sum(rows for _, gain, rows in leaves if gain > 0)


def _told(cut: float, dtype: pl.DataType) -> str:
    from datetime import date, timedelta

    return str(date(1970, 1, 1) + timedelta(days=int(cut))) if dtype in (pl.Date, pl.Datetime) else f"{cut:.4g}"
