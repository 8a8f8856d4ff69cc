"""Every public function of arrays shows in its docstring how it is called; pytest runs what is shown."""

import inspect

import pytest

from jaxgkd import graphs, losses


@pytest.mark.parametrize("package", [losses, graphs], ids=lambda package: package.__name__)
def test_public_functions_have_an_example(package):
    functions = [
        each for each in map(package.__dict__.get, package.__all__) if inspect.isfunction(inspect.unwrap(each))
    ]
    assert len(functions) > 10
    assert [each.__name__ for each in functions if ">>>" not in (inspect.getdoc(each) or "")] == []
