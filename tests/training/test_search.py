import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.errors import ConfigError
from jaxgkd.training.search import Choice, as_many_each, draw_settings, grid_settings, ranked, read_sweep

DEFAULT = {"learning_rate": 0.01, "dropout": 0.5, "temperature": 1.0}
SPACE = {"learning_rate": Choice((0.003, 0.01, 0.03)), "dropout": Choice((0.2, 0.5, 0.8))}
LARGER = SPACE | {"temperature": Choice((1.0, 2.0, 4.0))}


@given(tries=st.integers(1, 30), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_draws_begin_with_the_default_and_are_all_different(tries, seed):
    drawn = draw_settings(LARGER, DEFAULT, tries, seed)
    assert drawn[0] == DEFAULT
    assert len(drawn) <= tries
    assert len({tuple(sorted(setting.items())) for setting in drawn}) == len(drawn)
    for setting in drawn:
        assert setting.keys() == DEFAULT.keys()
        assert all(setting[name] in choice.values for name, choice in LARGER.items())
    assert drawn == draw_settings(LARGER, DEFAULT, tries, seed)


def test_a_small_space_is_exhausted_and_no_setting_is_drawn_twice():
    drawn = draw_settings(SPACE, DEFAULT, 50)
    assert len(drawn) == 9
    assert all(setting["temperature"] == 1.0 for setting in drawn)
    assert draw_settings({}, DEFAULT, 5) == [DEFAULT]


def test_another_seed_draws_otherwise():
    assert draw_settings(LARGER, DEFAULT, 8, seed=0) != draw_settings(LARGER, DEFAULT, 8, seed=1)


@given(tries=st.integers(1, 20), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_two_rows_try_the_same_values_of_what_they_share(tries, seed):
    small, large = draw_settings(SPACE, DEFAULT, tries, seed), draw_settings(LARGER, DEFAULT, tries, seed)

    def shared(drawn):
        return list(dict.fromkeys(tuple(setting[name] for name in SPACE) for setting in drawn))

    tried = shared(large)
    assert shared(small)[: len(tried)] == tried


def test_the_default_is_not_changed():
    default = dict(DEFAULT)
    draw_settings(LARGER, default, 4)[0]["dropout"] = 99.0
    assert default == DEFAULT


def test_settings_rank_by_their_mean_and_ties_go_to_the_earlier():
    assert ranked(np.array([[0.5, 0.6], [0.9, 0.1], [0.6, 0.7]])).tolist() == [2, 0, 1]
    assert ranked(np.array([[0.5, 0.5], [0.4, 0.6]])).tolist() == [0, 1]
    assert ranked(np.array([[np.nan, 0.9], [0.1, 0.2]])).tolist() == [1, 0]


def test_a_sweep_is_read_and_becomes_a_grid():
    sweep = read_sweep(["lr=1e-3,1e-2", "dropout=0.4"], list(DEFAULT))
    assert sweep == {"learning_rate": Choice((1e-3, 1e-2)), "dropout": Choice((0.4,))}
    assert grid_settings(sweep, DEFAULT) == [
        {"learning_rate": 1e-3, "dropout": 0.4, "temperature": 1.0},
        {"learning_rate": 1e-2, "dropout": 0.4, "temperature": 1.0},
    ]
    # What a row does not have is not swept in it.
    assert grid_settings({"temperature": Choice((1.0, 2.0))}, {"dropout": 0.1}) == [{"dropout": 0.1}]
    assert read_sweep(["align-temperature=1"], ["align_temperature"]) == {"align_temperature": Choice((1.0,))}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["width=1"], "'width=1' names no setting"),
        (["dropout"], "'dropout' names no setting"),
        (["dropout=a,b"], "'a,b' are no numbers"),
        (["dropout="], "'' are no numbers"),
        (["dropout=nan"], "'nan' are no numbers"),
        (["lr=1", "learning-rate=2"], "'learning-rate' is given twice"),
    ],
)
def test_a_sweep_that_cannot_be_read_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        read_sweep(words, list(DEFAULT))


def test_every_row_tries_as_many_settings():
    tries = {"alone": [{"a": 1.0}, {"a": 2.0}], "taught": [{"a": float(i)} for i in range(5)]}
    drawn = as_many_each(tries, drawn=True)
    assert drawn == {"alone": tries["alone"], "taught": tries["taught"][:2]}
    grid = as_many_each(tries, drawn=False)
    assert grid["taught"] == tries["taught"]
    assert [each["a"] for each in grid["alone"]] == [1, 2, 1, 2, 1]
