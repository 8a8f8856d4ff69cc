"""Notebooks and their scripts say the same, carry no outputs, and lead where pyproject.toml says."""

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("jupytext")
FOLDER = Path(__file__).parents[2] / "notebooks"
spec = importlib.util.spec_from_file_location("pairs", FOLDER / "pairs.py")
assert spec is not None and spec.loader is not None
pairs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pairs)
PROJECT = {"name": "jaxgkd", "version": "1.2.3"}


def test_every_notebook_has_a_script():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {path.stem for path in pairs.SCRIPTS}
    assert len(pairs.SCRIPTS) >= 3


@pytest.mark.parametrize("script", pairs.SCRIPTS, ids=lambda path: path.stem)
def test_pair_is_in_step(script):
    text = script.read_text(encoding="utf-8")
    assert text == pairs.with_addresses(text, pairs.project_table(), script.stem)
    # As values: a notebook that an editor has saved differs in white space alone.
    written = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))
    assert written == json.loads(pairs.as_notebook(text))
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in written["cells"])


@pytest.mark.parametrize("script", pairs.SCRIPTS, ids=lambda path: path.stem)
def test_reader_is_told_what_it_takes(script):
    text = script.read_text(encoding="utf-8")
    assert 'os.environ.get("JAXGKD_FAST") == "1"' in text
    assert script.stem in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert 'if "google.colab" in sys.modules:' in text


def test_addresses_without_a_repository_name_none():
    badge, source = pairs.addresses(PROJECT, "tour")
    assert badge == "https://colab.research.google.com"
    assert source == "jaxgkd-1.2.3-py3-none-any.whl"


@pytest.mark.parametrize("ending", ["", "/", ".git"])
def test_addresses_come_from_the_repository(ending):
    project = PROJECT | {"urls": {"Repository": f"https://github.com/some-one/some.thing{ending}"}}
    badge, source = pairs.addresses(project, "tour")
    assert badge == "https://colab.research.google.com/github/some-one/some.thing/blob/main/notebooks/tour.ipynb"
    assert source == "jaxgkd @ git+https://github.com/some-one/some.thing"


def test_repository_that_colab_cannot_open_is_refused():
    with pytest.raises(ValueError, match="Colab opens"):
        pairs.addresses(PROJECT | {"urls": {"Repository": "https://example.org/some/thing"}}, "tour")


def test_script_without_a_badge_is_refused():
    with pytest.raises(ValueError, match="0 lines"):
        pairs.with_addresses("# %%\n1 + 1\n", PROJECT, "tour")
