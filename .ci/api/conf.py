"""The API pages, built from docstrings alone: ``sphinx-build -W -n --keep-going -b html .ci/api build/api``.

A name in single backticks is a reference, and one that leads nowhere fails the build.
"""

import re
import sys
from functools import reduce
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
# Sphinx looks for the fields of a class too, and several classes have fields of one name.
suppress_warnings = ["ref.python"]


def resolve(app, environment, node, content):
    """Find a name as the module that mentions it would, else anywhere in the package; what is no name is code."""
    target = node.get("reftarget", "").removesuffix("()")
    if node.get("refdomain") != "py" or node.get("reftype") == "class":
        return None
    if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", target):
        return content
    objects = environment.get_domain("py").objects
    holder = sys.modules.get(node.get("py:module") or "")
    known = holder is not None and named(holder, node.get("py:class"), target)
    found = {known} & set(objects) if known else {name for name in objects if f".{name}".endswith(f".{target}")}
    if len(found) > 1:
        # A module that is called like the function in it is hardly what is meant.
        found = {name for name in found if objects[name].objtype != "module"}
    if len(found) == 1:
        domain = environment.get_domain("py")
        return domain.resolve_xref(environment, node["refdoc"], app.builder, "obj", found.pop(), node, content)
    return content if known else None


def named(module, within, target):
    """Where what a module calls ``target`` is defined, or its name alone where it has no place; "" if there is none."""
    for start in (*([getattr(module, within, None)] if within else []), module):
        if target in getattr(start, "__annotations__", {}):
            return f"{module.__name__}.{within}.{target}" if within else target
        try:
            found = reduce(getattr, target.split("."), start)
        except AttributeError:
            continue
        return f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', target)}"
    return ""


def setup(app):
    """Called by Sphinx."""
    app.connect("missing-reference", resolve)
