"""Writes every notebook from its script, and the addresses in it: ``python notebooks/pairs.py``.

A notebook is a pair: ``NAME.py`` (jupytext's percent format) is what people edit and review, ``NAME.ipynb`` is what
Colab opens, without outputs. Two lines of each depend on where the project is published. They are made from
``Repository`` under ``[project.urls]`` in pyproject.toml, and from nothing else:

* with it, the badge opens the notebook from the repository, and the first cell installs from there;
* without it, the badge leads to Colab, where the notebook is uploaded, and the first cell installs the wheel that was
  uploaded beside it (``pip wheel --no-deps .`` makes one).
"""

import re
import tomllib
from pathlib import Path

import jupytext

HERE = Path(__file__).resolve().parent
SCRIPTS = tuple(sorted(path for path in HERE.glob("*.py") if path.name != Path(__file__).name))
COLAB = "https://colab.research.google.com"

_BADGE = re.compile(r"^# \[!\[Open in Colab\].*$", re.MULTILINE)
_SOURCE = re.compile(r'^SOURCE = ".*"$', re.MULTILINE)
_GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")


def addresses(project: dict, name: str) -> tuple[str, str]:
    """Where the badge of a notebook leads, and what its first cell installs on Colab.

    Args:
      project: the table ``[project]`` of pyproject.toml.
      name: of the notebook, without its ending.

    Raises:
      ValueError: the repository is none that Colab opens.
    """
    repository = project.get("urls", {}).get("Repository")
    if repository is None:
        return COLAB, f"{project['name']}-{project['version']}-py3-none-any.whl"
    found = _GITHUB.fullmatch(repository)
    if found is None:
        raise ValueError(f"pyproject.toml: Repository is {repository}; Colab opens https://github.com/OWNER/NAME alone")
    notebook = f"{COLAB}/github/{found[1]}/blob/main/notebooks/{name}.ipynb"
    return notebook, f"{project['name']} @ git+https://github.com/{found[1]}"


def with_addresses(script: str, project: dict, name: str) -> str:
    """The text of a script with its badge and the source of its first cell as they have to be.

    Raises:
      ValueError: one of the two lines is not there, or is there twice.
    """
    badge, source = addresses(project, name)
    lines = {
        _BADGE: f"# [![Open in Colab]({COLAB}/assets/colab-badge.svg)]({badge})",
        _SOURCE: f'SOURCE = "{source}"',
    }
    for pattern, line in lines.items():
        script, n = pattern.subn(lambda _, line=line: line, script)
        if n != 1:
            raise ValueError(f"{name}.py has {n} lines like: {line}")
    return script


def as_notebook(script: str) -> str:
    """The notebook of a script: the same cells, numbered, without outputs."""
    notebook = jupytext.reads(script, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        # Else their names are drawn at random, and every writing would change the file.
        cell["id"] = f"cell-{number}"
    return jupytext.writes(notebook, fmt="ipynb")


def project_table() -> dict:
    """The table ``[project]`` of pyproject.toml."""
    return tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]


if __name__ == "__main__":
    for path in SCRIPTS:
        script = with_addresses(path.read_text(encoding="utf-8"), project_table(), path.stem)
        path.write_text(script, encoding="utf-8")
        path.with_suffix(".ipynb").write_text(as_notebook(script), encoding="utf-8")
        print(path.with_suffix(".ipynb").name)
