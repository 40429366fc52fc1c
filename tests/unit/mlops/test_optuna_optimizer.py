"""Hyperparameter search: resumable, deterministic, honest about failed trials."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2i.errors import BackendRejected, BackendUnavailable, ConfigError, DataError, E2IError, StepFailed
from e2i.mlops.optuna_optimizer import OptunaOptimizer, OptunaSettings
from e2i.ports.models import SearchRequest
from e2i.ports.records import Pattern

SPACE = {
    "max_depth": {"type": "int", "low": 3, "high": 10},
    "n_estimators": {"type": "int", "low": 50, "high": 500, "step": 50},
    "learning_rate": {"type": "float", "low": 0.01, "high": 0.3, "log": True},
    "booster": {"type": "categorical", "choices": ["gbtree", "dart", None]},
}
DEFAULTS = {"max_depth": 6, "n_estimators": 100, "learning_rate": 0.3, "booster": "gbtree", "verbosity": 0}


class Inline:
    """An executor without a process: the same contract, errors of others become StepFailed."""

    def __init__(self) -> None:
        self.calls = 0

    async def run(self, function, /, *args, **kwargs):
        self.calls += 1
        try:
            return function(*args, **kwargs)
        except E2IError:
            raise
        except Exception as error:
            raise StepFailed(f"{type(error).__name__}: {error}") from error


class Memory:
    """Search records in memory."""

    def __init__(self, patterns=()) -> None:
        self.patterns = list(patterns)
        self.studies = {}
        self.remembered = {}
        self.asked = []

    async def save_study(self, result, *, experiment_id, problem_type, space, sampler, pruner):
        self.studies[result.study_name] = (result, sampler, pruner)

    async def remember(self, result, *, problem_type, meta_features):
        self.remembered[result.study_name] = (result.best_params, dict(meta_features))

    async def similar(self, *, algorithm, problem_type, meta_features, minimum, limit):
        self.asked.append((minimum, limit))
        return [pattern for pattern in self.patterns if pattern.similarity >= minimum][:limit]


def smooth(params, fold):
    """A score with one hill at depth 6, rate 0.05; folds differ a little."""
    distance = (math.log10(params["learning_rate"]) + 1.3) ** 2 + 0.02 * (params["max_depth"] - 6) ** 2
    return 0.85 - 0.05 * distance + 0.004 * math.sin(17 * params["max_depth"] + 5 * fold)


def slow(params, fold):
    time.sleep(0.01)
    return smooth(params, fold)


def request(score=smooth, **changes) -> SearchRequest:
    fields = {
        "study_name": "search_a",
        "experiment_id": "exp",
        "algorithm": "xgboost",
        "problem_type": "binary_classification",
        "metric": "roc_auc",
        "space": SPACE,
        "defaults": DEFAULTS,
        "folds": 5,
        "n_trials": 24,
        "seed": 42,
        "meta_features": {"rows": 1000.0},
        "score_fold": score,
    }
    return SearchRequest(**{**fields, **changes})


def search(req, *, url=None, records=None, executor=None, progress=None, **settings):
    optimizer = OptunaOptimizer(OptunaSettings(storage_url=url, **settings), records or Memory())
    return asyncio.run(optimizer.optimize(req, executor=executor or Inline(), progress=progress or (lambda *_: None)))


def outline(trials):
    """What must be equal between two searches: everything but the clock."""
    return [(trial.number, trial.state, trial.params, trial.value, trial.intermediate) for trial in trials]


def pattern(name, params, *, similarity):
    return Pattern(pattern_id=name, params=params, value=0.9, similarity=similarity)


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'optuna.db'}"


def test_a_search_beats_the_defaults_and_reports_what_it_did():
    records, seen = Memory(), []
    result, trials = search(request(n_trials=30), records=records, progress=lambda *step: seen.append(step))
    assert result.best_value > trials[0].value
    assert result.n_complete + result.n_pruned + result.n_failed == len(trials) == 30
    assert result.best_params["verbosity"] == 0
    assert [done for done, _, _ in seen] == list(range(1, 31))
    assert seen[-1] == (30, 30, result.best_value)
    assert records.studies["search_a"] == (result, "tpe", "hyperband")
    assert records.remembered["search_a"] == (result.best_params, {"rows": 1000.0})


def test_the_first_trial_is_the_defaults_moved_into_the_search_space():
    _, trials = search(request(n_trials=1, defaults={**DEFAULTS, "n_estimators": 1000, "max_depth": 6}))
    assert trials[0].params == {"max_depth": 6, "n_estimators": 500, "learning_rate": 0.3, "booster": "gbtree"}


def test_a_default_that_no_number_can_stand_for_is_left_to_the_sampler():
    _, trials = search(request(n_trials=1, defaults={**DEFAULTS, "max_depth": None}))
    assert 3 <= trials[0].params["max_depth"] <= 10
    assert trials[0].params["learning_rate"] == 0.3


def test_pruned_trials_run_fewer_folds_and_have_no_value():
    executor = Inline()
    result, trials = search(request(n_trials=30), executor=executor)
    pruned = [trial for trial in trials if trial.state == "PRUNED"]
    assert result.n_pruned == len(pruned) > 0
    assert all(trial.value is None and 0 < len(trial.intermediate) < 5 for trial in pruned)
    assert executor.calls == sum(len(trial.intermediate) for trial in trials) < 30 * 5
    complete = [trial for trial in trials if trial.state == "COMPLETE"]
    assert all(trial.value == trial.intermediate[5] for trial in complete)


def test_similar_patterns_are_tried_right_after_the_defaults():
    near = [pattern(str(i), {"max_depth": 4 + i, "learning_rate": 0.05, "unknown": 1}, similarity=0.9) for i in range(6)]
    far = pattern("far", {"max_depth": 10, "learning_rate": 0.01}, similarity=0.5)
    records = Memory([near[0], near[0], *near[1:], far])
    result, trials = search(request(n_trials=12), records=records)
    assert records.asked == [(0.7, 20)]
    assert result.n_warm_start == 4
    assert [(trial.params["max_depth"], trial.params["learning_rate"]) for trial in trials[1:5]] == [(4 + i, 0.05) for i in range(4)]


def test_warm_start_can_be_switched_off():
    records = Memory([pattern("1", {"max_depth": 4}, similarity=1.0)])
    result, _ = search(request(n_trials=3), records=records, warmstart_enabled=False)
    assert (result.n_warm_start, records.asked) == (0, [])


def test_the_same_seed_gives_the_same_trials_under_any_study_name():
    first, second = search(request())[1], search(request(study_name="another"))[1]
    assert outline(first) == outline(second)
    assert outline(search(request(seed=43))[1]) != outline(first)


def test_a_search_killed_in_the_middle_and_resumed_equals_an_undisturbed_one(tmp_path):
    url = sqlite(tmp_path)
    _, undisturbed = search(request())
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout:
            if int(line) >= 18:  # well beyond the random start, so TPE decides
                break
        time.sleep(0.015)  # into the next trial's folds
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    executor, seen = Inline(), []
    result, resumed = search(request(), url=url, executor=executor, progress=lambda *step: seen.append(step[0]))
    assert 17 <= seen[0] < 24
    assert executor.calls < sum(len(trial.intermediate) for trial in undisturbed)
    assert outline(resumed) == outline(undisturbed)
    assert stored_states(url) == [trial.state for trial in undisturbed]
    assert result.best_trial == max((t for t in undisturbed if t.value is not None), key=lambda t: t.value).number


def stored_states(url):
    import optuna

    return [trial.state.name for trial in optuna.load_study(study_name="search_a", storage=url).trials]


def test_a_search_stopped_after_every_single_trial_equals_an_undisturbed_one(tmp_path):
    for n_trials in range(1, 25):
        _, stopped = search(request(n_trials=n_trials), url=sqlite(tmp_path))
    assert outline(stopped) == outline(search(request())[1])


def test_patterns_that_appear_after_the_start_do_not_change_a_resumed_search(tmp_path):
    search(request(n_trials=2), url=sqlite(tmp_path))
    late = Memory([pattern("1", {"max_depth": 9, "learning_rate": 0.02}, similarity=1.0)])
    result, trials = search(request(), url=sqlite(tmp_path), records=late)
    assert result.n_warm_start == 0
    assert outline(trials) == outline(search(request())[1])


def test_trials_that_others_left_in_the_study_are_not_counted(tmp_path):
    import optuna

    search(request(n_trials=5), url=sqlite(tmp_path))
    foreign = optuna.load_study(study_name="search_a", storage=sqlite(tmp_path))
    foreign.ask()  # stays RUNNING, as after a kill
    _, trials = search(request(), url=sqlite(tmp_path))
    assert outline(trials) == outline(search(request())[1])


def test_a_finished_search_is_not_run_again(tmp_path):
    first, executor = search(request(), url=sqlite(tmp_path)), Inline()
    second = search(request(), url=sqlite(tmp_path), executor=executor)
    assert executor.calls == 0
    assert outline(second[1]) == outline(first[1])
    assert dataclasses.replace(second[0], seconds=0) == dataclasses.replace(first[0], seconds=0)


def test_another_search_under_a_used_name_is_refused(tmp_path):
    search(request(n_trials=2), url=sqlite(tmp_path))
    with pytest.raises(BackendRejected, match="another search under this name"):
        search(request(n_trials=2, meta_features={"rows": 1001.0}), url=sqlite(tmp_path))


def test_an_error_fails_one_trial_and_not_the_search():
    def fragile(params, fold):
        if params["booster"] == "dart":
            raise ValueError("dart cannot do that")
        return smooth(params, fold)

    result, trials = search(request(fragile))
    failed = [trial for trial in trials if trial.state == "FAIL"]
    assert result.n_failed == len(failed) > 0
    assert all(trial.params["booster"] == "dart" and trial.value is None for trial in failed)
    assert result.best_params["booster"] != "dart"


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf, None, "0.9", True])
def test_a_score_that_is_not_a_finite_number_fails_its_trial(nonsense):
    result, trials = search(request(lambda params, fold: nonsense if params["max_depth"] != 6 and fold == 1 else smooth(params, fold)))
    assert all(trial.state != "COMPLETE" for trial in trials if trial.params["max_depth"] != 6)
    assert any(trial.state == "FAIL" for trial in trials)
    assert math.isfinite(result.best_value)


def test_a_search_without_any_success_tells_the_first_reason_and_stops_early(tmp_path):
    executor = Inline()

    def broken(params, fold):
        raise RuntimeError("label has one class")

    with pytest.raises(DataError, match="none of 10 trials of xgboost succeeded; the first one: RuntimeError: label has one class"):
        search(request(broken), url=sqlite(tmp_path), executor=executor)
    assert executor.calls == 10
    result, _ = search(request(), url=sqlite(tmp_path))  # mended: the failed search is begun anew
    assert result.n_failed == 0


def test_a_dead_worker_stops_the_search_and_keeps_the_finished_trials(tmp_path):
    class Dying(Inline):
        async def run(self, function, /, *args, **kwargs):
            if self.calls == 20:
                raise BackendUnavailable("the worker process ended")
            return await super().run(function, *args, **kwargs)

    with pytest.raises(BackendUnavailable):
        search(request(), url=sqlite(tmp_path), executor=Dying())
    assert 4 <= len(stored_states(sqlite(tmp_path))) < 24
    assert outline(search(request(), url=sqlite(tmp_path))[1]) == outline(search(request())[1])


@pytest.mark.parametrize(
    ("space", "named"),
    [
        ({"rate": {"type": "number", "low": 0, "high": 1}}, "rate"),
        ({"rate": {"type": "float", "low": 1.0, "high": 0.1}}, "rate"),
        ({"rate": {"type": "float", "low": 0.1}}, "rate"),
        ({"kind": {"type": "categorical", "choices": []}}, "kind"),
        ({}, "empty"),
    ],
)
def test_a_wrong_search_space_names_the_parameter(space, named):
    with pytest.raises(ConfigError, match=named):
        search(request(space=space))


def test_a_wrong_storage_address_is_a_configuration_error():
    with pytest.raises(ConfigError, match="OPTUNA_STORAGE_URL"):
        search(request(), url="not an address")


def test_an_unreachable_storage_may_be_tried_again():
    with pytest.raises(BackendUnavailable):
        search(request(), url="postgresql+psycopg://nobody@127.0.0.1:9/none")


def test_a_search_on_a_real_model_finds_a_better_one_than_the_defaults(tmp_path):
    from sklearn.datasets import make_classification
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    x, y = make_classification(n_samples=300, n_features=30, n_informative=3, flip_y=0.2, random_state=1)
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(x, y))

    def score(params, fold):
        train, held = folds[fold]
        return LogisticRegression(C=params["C"], max_iter=500).fit(x[train], y[train]).score(x[held], y[held])

    space = {"C": {"type": "float", "low": 1e-4, "high": 100.0, "log": True}}
    result, trials = search(request(score, space=space, defaults={"C": 100.0}, folds=3, n_trials=15))
    assert result.best_value > trials[0].value
    assert trials[0].params == {"C": 100.0}


if __name__ == "__main__":
    search(request(slow), url=sys.argv[1], progress=lambda done, *_: os.write(1, f"{done}\n".encode()))
