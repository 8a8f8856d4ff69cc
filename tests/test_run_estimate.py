import pytest

from jaxgkd import run_estimate
from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.run_estimate import FIXED_SECONDS, REFERENCES, estimate_run


@pytest.fixture
def graph(text_graph_folder, tmp_path):
    return load_text_graph(text_graph_folder(tmp_path / "topics"))


def test_the_language_model_is_timed_and_the_rest_in_proportion(graph, bert_folder, monkeypatch):
    monkeypatch.setattr(run_estimate, "TEACHER", str(bert_folder))
    found = estimate_run("lingugkd", graph)
    assert found.lines[0].startswith("estimate: 180 prompts to ")
    assert "timed now on 32 of the texts" in found.lines[0]
    assert "`jaxgkd run lingugkd` took 3 min for 10,451 nodes and linked pairs" in found.lines[1]
    reference = REFERENCES["lingugkd"]
    pairs = len({tuple(sorted(pair)) for pair in zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True)})
    rest = FIXED_SECONDS + (reference.seconds - FIXED_SECONDS) * (60 + pairs) / reference.units
    assert rest < found.seconds < rest + 60


def test_what_is_not_known_is_said(graph, monkeypatch, tmp_path):
    monkeypatch.setattr(run_estimate, "TEACHER", str(tmp_path / "nowhere"))
    monkeypatch.setattr("jaxgkd.language.is_local", lambda name: False)
    found = estimate_run("lingugkd", graph)
    assert found.seconds is None
    assert "is not on this machine" in found.lines[0]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.2, "1 s"), (89, "89 s"), (314, "5 min"), (5399, "90 min"), (7200, "2.0 h")]
)
def test_durations(seconds, shown):
    assert run_estimate._shown(seconds) == shown
