"""Many draws at once: placebo treatments, random causes, dummy outcomes, subsets and the bootstrap.

Nothing is fitted by learners again: draws go through reused nuisances, through least squares in closed form (`ground`), or through
influence values. The refits of `refits` are the thorough variant of the first, second and fourth.
"""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.estimators.nuisances import kind_of
from e2i.causal.refute.ground import Functional, Ground
from e2i.causal.refute.normal import two_sided
from e2i.domain.evidence import Refutation

DRAWS = 100
_LEVEL = 0.01
_MATERIAL = 0.5
"""of a standard error: a smaller move changes no interval worth the name"""
_PLACEBO_MATERIAL = 1.0
"""of a standard error: shrunken propensities leave half of one in sound small samples"""
_DUMMY_MATERIAL = 2.0
"""of a standard error"""
_SUBSET_SHARE = 0.8
_RATIO = 1.35
"""of two standard errors of one estimate; over 100 draws chance alone stays below 1.2"""
_FEWEST_PER_HALF = 30


def placebo_treatments(ground: Ground, *, seed: int, draws: int = DRAWS) -> Refutation:
    """Draw treatment anew from a propensity of our own: the effect of these placebos must vanish.

    The placebos keep the association of treatment with the covariates, through a logistic regression that shares nothing with
    the fitted propensity; so nuisances that do not adjust are caught. Fails when zero lies outside the middle 99 % of the
    draws, or when the average placebo effect is above a standard error and significant at 1 %. Draws by row know nothing of what rows of
    one cluster share, so in clusters the average alone decides, beside its own clustered error.
    """
    chance = ground.reference
    effects = _placebo_effects(ground, chance, draws, seed)
    average, noise = _average_placebo(ground, chance)
    error = ground.fit.standard_error
    tail = float(min((effects >= 0).mean(), (effects <= 0).mean()))
    p_value = two_sided(average / noise) if noise > 0 else 1.0
    passed = (tail >= _LEVEL / 2 or ground.clusters is not None) and not (abs(average) > _PLACEBO_MATERIAL * error and p_value < _LEVEL)
    ending = "zero, as it must be." if passed else "it should be zero: the adjustment fails."
    return Refutation(
        test="placebo_treatment",
        passed=passed,
        detail=(
            f"With treatment drawn anew among like units ({draws} draws) the effect is {effects.mean():.3g} on average, "
            f"{effects.mean() / error:+.2f} standard errors; {ending}"
        ),
        statistic=float(average / error),
        p_value=_deciding(p_value, passed=passed),
        estimate=average,
    )


def _deciding(p_value: float, *, passed: bool) -> float | None:
    """The p-value where it goes with the result; None where size decides: an effect too small to matter, or a tail of the draws."""
    return p_value if passed == (p_value >= _LEVEL) else None


def random_common_causes(ground: Ground, *, seed: int, draws: int = DRAWS) -> Refutation:
    """Add a column of noise to the adjustment, draw after draw: the estimate must stay put.

    Exact for the fast estimator (Frisch, Waugh and Lovell). Fails when more than 5 % of draws move it by more than half a
    standard error: then the adjustment is too wide for the rows.
    """
    moves = noise_moves(ground.full, ground.sample.outcome, draws=draws, seed=seed) / ground.fit.standard_error
    high = float(np.quantile(np.abs(moves), 0.95))
    return Refutation(
        test="random_common_cause",
        passed=high <= _MATERIAL,
        detail=(
            f"A random covariate added to the adjustment moves the estimate by at most {high:.2f} standard errors "
            f"in 95 % of {draws} draws (at most {_MATERIAL} may be)."
        ),
        statistic=high,
    )


def dummy_outcomes(ground: Ground, *, seed: int, draws: int = DRAWS) -> Refutation:
    """Outcomes invented from the covariates alone, with the outcome's own distribution: treatment must not move them.

    Each draw is the prediction whatever the treatment plus a residual of another row (a coin with that chance for 0/1
    outcomes). The propensity is the estimate's own, the outcome regression is fitted anew. Fails when the average effect is
    above two standard errors and significant at 1 %: rows that were sampled differ in any prediction by chance, and what is left to the
    learned outcome model, which this regression is not, harms the estimate by the part alone that the model misses.
    """
    effects = ground.simple.estimates(_dummies(ground, draws, seed))
    average, error = float(effects.mean()), ground.fit.standard_error
    values = ground.by_cluster(ground.simple.influence(_without_treatment(ground)[:, None]))
    noise = float(np.sqrt(np.sum(values**2))) / len(ground.sample.outcome)
    p_value = two_sided(average / noise) if noise > 0 else 1.0
    passed = abs(average) <= _DUMMY_MATERIAL * error or p_value >= _LEVEL
    return Refutation(
        test="dummy_outcome",
        passed=passed,
        detail=(
            f"The effect on {draws} outcomes drawn from the covariates alone is {average:.3g} on average ({average / error:+.2f} standard "
            f"errors); {'zero, as it must be.' if passed else 'it should be zero: treated and untreated units are not comparable.'}"
        ),
        statistic=average / error,
        p_value=_deciding(p_value, passed=passed),
        estimate=average,
    )


def subsets(ground: Ground, influence: FloatArray, *, seed: int, draws: int = DRAWS) -> Refutation | None:
    """Random halves must differ as much as the standard error says, and subsets of 80 % must stay inside the interval.

    Parameters
    ----------
    influence : shape (n,), of the estimate

    Returns
    -------
    Refutation or None
        None when a half would have fewer than 30 rows in an arm.
    """
    treated = float(ground.sample.treatment.sum())
    if min(treated, len(ground.sample.treatment) - treated) < 2 * _FEWEST_PER_HALF:
        return None
    values = ground.by_cluster(influence[:, None])[:, 0]
    lot = np.random.default_rng(seed).random((draws, len(values)), dtype=np.float32)
    n = len(influence)
    # One half against the other: twice the mean of influence values with random signs, and so twice the standard error.
    halves = np.where(lot < 0.5, 1.0, -1.0) @ values / n
    ratio = float(np.sqrt(np.mean(halves**2))) / ground.fit.standard_error
    inside = (lot < _SUBSET_SHARE).astype(np.float64)
    moves = (inside @ values) / (inside.sum(axis=1) * n / len(values))
    kept = float((np.abs(moves) <= 1.96 * ground.fit.standard_error).mean())
    low, high = np.quantile(ground.fit.estimate + moves, [0.025, 0.975])
    return Refutation(
        test="subset_stability",
        passed=ratio <= _RATIO and kept >= _SUBSET_SHARE,
        detail=(
            f"Random halves of the rows differ {ratio:.2f} times as much as the standard error says "
            f"(at most {_RATIO} may be, {draws} draws); "
            f"subsets of 80 % range from {low:.4g} to {high:.4g}, {kept:.0%} of them inside the interval."
        ),
        statistic=ratio,
    )


def bootstrap(ground: Ground, influence: FloatArray, *, seed: int, draws: int = DRAWS) -> Refutation:
    """Multiplier bootstrap with exponential weights over independent units: its standard error must agree with the one claimed.

    Weights of mean and variance 1 on influence values (van der Vaart and Wellner 1996, section 2.9). Fails when the claimed
    standard error is smaller by more than a factor 1.35.

    Parameters
    ----------
    influence : shape (n,), of the estimate
    """
    values = ground.by_cluster(influence[:, None])[:, 0]
    weight = np.random.default_rng(seed).standard_exponential((draws, len(values)), dtype=np.float32) - 1.0
    moves = weight @ values / len(influence)
    error = float(moves.std(ddof=1))
    low, high = np.quantile(ground.fit.estimate + moves, [0.025, 0.975])
    ratio = error / ground.fit.standard_error
    return Refutation(
        test="bootstrap",
        passed=ratio <= _RATIO,
        detail=(
            f"The standard error over {draws} bootstrap draws is {error:.4g}, {ratio:.2f} times the one claimed (at most {_RATIO} may be); "
            f"the draws' 95 % range is {low:.4g} to {high:.4g}."
        ),
        statistic=ratio,
    )


def noise_moves(fast: Functional, outcome: FloatArray, *, draws: int, seed: int) -> FloatArray:
    """By how much each of `draws` columns of noise, added to the design, moves the estimate; shape (draws,)."""
    noise = np.random.default_rng(seed).standard_normal((draws, len(outcome)), dtype=np.float32).astype(np.float64)
    outcome = outcome - outcome.mean()
    slopes = fast.slopes(outcome[:, None])
    aim = noise @ (fast.mass / fast.mass.sum())
    moves = np.zeros(draws)
    arms = (0,) if fast.estimand == "ATT" else (0, 1)
    for arm in arms:
        rows, inverse = fast.arms[arm], fast.inverses[arm]
        design, weights, part = fast.design[rows], fast.weights[rows], noise[:, fast.arms[arm]]
        residual = outcome[rows] - design @ slopes[arm][:, 0]
        cross = part @ (design * weights[:, None])
        projected = cross @ inverse
        spread = part**2 @ weights - np.sum(projected * cross, axis=1)
        slope = part @ (weights * residual) / spread
        moves += (1.0 if arm else -1.0) * slope * (aim - projected @ fast.target)
    return moves


def _placebo_effects(ground: Ground, chance: FloatArray, draws: int, seed: int) -> FloatArray:
    """Effects of placebo treatments with the estimate's own nuisances, shape (draws,)."""
    lot = np.random.default_rng(seed).random((draws, len(chance)), dtype=np.float32)
    placebo = (lot < chance.astype(np.float32)).astype(np.float64)
    base = np.ones(len(chance)) if ground.sample.weights is None else ground.sample.weights
    up, down, residual = _placebo_parts(ground)
    columns = np.column_stack([base * up, base * up * residual, base * down, base * down * residual])
    drawn = placebo @ columns
    total = columns.sum(axis=0)
    out: FloatArray = drawn[:, 1] / drawn[:, 0] - (total[3] - drawn[:, 3]) / (total[2] - drawn[:, 2])
    return out


def _average_placebo(ground: Ground, chance: FloatArray) -> tuple[float, float]:
    """What the placebo effects average to over endless draws, and its standard error from the outcome's noise."""
    base = np.ones(len(chance)) if ground.sample.weights is None else ground.sample.weights
    up, down, residual = _placebo_parts(ground)
    weight = base * chance * up / (base * chance * up).sum() - base * (1 - chance) * down / (base * (1 - chance) * down).sum()
    return float(weight @ residual), float(np.sqrt(np.sum(ground.by_cluster((weight * residual)[:, None]) ** 2)))


def _placebo_parts(ground: Ground) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weight of a row as a treated one, as an untreated one, and what the nuisances leave of the outcome."""
    chance = ground.chance
    if ground.fit.estimand == "ATE":
        return 1.0 / chance, 1.0 / (1.0 - chance), ground.sample.outcome - ground.blended
    if ground.fit.estimand == "ATO":
        return 1.0 - chance, chance, ground.sample.outcome - ground.blended
    residual = ground.sample.outcome - ground.untreated - ground.sample.treatment * ground.fit.estimate
    return np.ones(len(chance)), chance / (1.0 - chance), residual


def _without_treatment(ground: Ground) -> FloatArray:
    """The prediction that a dummy outcome follows, shape (n,)."""
    return ground.untreated if ground.fit.estimand == "ATT" else ground.blended


def _dummies(ground: Ground, draws: int, seed: int) -> FloatArray:
    """Outcomes drawn from the covariates alone, shape (n, draws)."""
    rng = np.random.default_rng(seed)
    outcome = ground.sample.outcome
    mean = _without_treatment(ground)
    if kind_of(outcome) == "binary":
        return (rng.random((len(mean), draws), dtype=np.float32) < mean[:, None]).astype(np.float64)
    residual = ground.residual - ground.residual.mean()
    drawn: FloatArray = mean[:, None] + residual[rng.integers(len(mean), size=(len(mean), draws), dtype=np.int32)]
    return drawn
