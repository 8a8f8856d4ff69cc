"""The API pages, built from docstrings alone: ``sphinx-build -W -n --keep-going -b html .ci/api build/api``.

A name in single backticks is a reference, and one that leads nowhere fails the build.
"""

import re
from importlib.metadata import version as version_of

project = "jaxgkd"
version = release = version_of("jaxgkd")
extensions = ["sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
apidoc_modules = [{"path": "../../jaxgkd", "destination": "modules", "separate_modules": True, "max_depth": 2}]
exclude_patterns = ["modules/modules.rst"]
html_theme = "furo"

default_role = "py:obj"
napoleon_custom_sections = [("Fields", "Attributes"), ("Source", "References"), ("Yields", "Returns")]
# Else every attribute of a class that is described twice, in its docstring and beside it, would be defined twice.
napoleon_use_ivar = True
autodoc_typehints = "none"
# What a package gives out again is described where it is defined.
autodoc_default_options = {"ignore-module-all": True}
# What napoleon takes for a type is often a sentence; types are in the signatures.
nitpick_ignore_regex = [("py:class", ".*")]


def resolve(app, environment, node, content):
    """Find a name wherever in the package it is defined, if it is defined once; what is no name is code."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or node.get("reftype") == "class":
        return None
    if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*(\(\))?", target):
        return content
    domain = environment.get_domain("py")
    ending = "." + target.removesuffix("()")
    found = {name for name in domain.objects if f".{name}".endswith(ending)}
    if len(found) != 1:
        return None
    name = found.pop()
    return domain.resolve_xref(environment, node["refdoc"], app.builder, "obj", name, node, content)


def setup(app):
    """Called by Sphinx."""
    app.connect("missing-reference", resolve)
