"""How tests are run, and what those of several packages need."""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from hypothesis import settings

from tests.made_graphs import text_graph_folder  # noqa: F401
from tests.made_models import bert_folder, byte_bpe, causal_folder, wordpiece  # noqa: F401
from tests.made_runs import (  # noqa: F401
    names,
    node_run,
    predictions,
    predicts_itself,
    readable,
    run_directory,
    summary,
)

# Most of the time of the tests is XLA's, and most of that goes into making programs fast that run once. Processes that
# tests start find it in their environment.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
jax.config.update("jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1")
QUICKER_CODE = "--xla_cpu_use_fusion_emitters=false"


def pytest_configure(config: pytest.Config) -> None:
    """The older way of making code for a CPU takes half the time; XLA aborts on a flag it does not know (any more)."""
    flags = os.environ.get("XLA_FLAGS", "")
    if hasattr(config, "workerinput") or QUICKER_CODE in flags:
        return
    asked = {**os.environ, "XLA_FLAGS": f"{flags} {QUICKER_CODE}".strip()}
    tried = subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], env=asked, capture_output=True)
    if tried.returncode == 0:
        os.environ["XLA_FLAGS"] = asked["XLA_FLAGS"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long runs of options that a shorter test covers in part are made where JAXGKD_THOROUGH is set."""
    if not os.environ.get("JAXGKD_THOROUGH"):
        for item in items:
            if item.get_closest_marker("thorough"):
                item.add_marker(pytest.mark.skip(reason="set JAXGKD_THOROUGH to make long runs too"))


@pytest.fixture(scope="module", autouse=True)
def few_programs() -> Iterator[None]:
    """Forgets compiled programs before they are too many for a process.

    Each of them maps some pieces of memory. Linux gives a process 65,530, and XLA crashes where it gets no other.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.is_file() and maps.read_bytes().count(b"\n") > 40_000:
        jax.clear_caches()
        gc.collect()


# The same examples every time, so that a failure is the change's; `--hypothesis-profile=default` draws others.
settings.register_profile("repeated", derandomize=True)
settings.load_profile("repeated")


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory) -> Iterator[Path]:
    """The user's cache folder is an empty one, which stays for all tests of a file."""
    from jax.experimental.compilation_cache import compilation_cache

    folder = tmp_path_factory.mktemp("cache")
    options = {
        "jax_compilation_cache_dir": str(folder / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    before = {name: jax.config.values[name] for name in options}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        for name, value in options.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        yield folder
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
