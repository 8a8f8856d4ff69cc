from pathlib import Path

import jax
import pytest

from jaxgkd.training.compilation import cache_folder, use_compilation_cache

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_enable_compilation_cache",
)


@pytest.fixture(autouse=True)
def no_cache_yet(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = {option: getattr(jax.config, option) for option in OPTIONS}
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", True)
    yield
    for option, value in before.items():
        jax.config.update(option, value)


def test_the_cache_is_in_the_users_cache_folder(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "jaxgkd"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "jaxgkd"


def test_programs_are_kept_below_it(tmp_path):
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "jaxgkd" / "compiled")


def test_a_folder_that_the_user_chose_stays():
    jax.config.update("jax_compilation_cache_dir", "/somewhere")
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == "/somewhere"


def test_a_cache_that_is_switched_off_stays_off():
    jax.config.update("jax_enable_compilation_cache", False)
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None
