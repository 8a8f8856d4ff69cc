"""JAX's persistent compilation cache, in the user's cache folder: a second run starts without compiling."""

import os
from pathlib import Path

import jax


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/jaxgkd`` or ``~/.cache/jaxgkd``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxgkd"


def use_compilation_cache() -> None:
    """Keep compiled programs between runs, unless the user has set a folder or switched the cache off."""
    # The two are attributes that jax.config makes at import time, out of a type checker's sight.
    switched_on, folder = (
        getattr(jax.config, f"jax_{name}") for name in ("enable_compilation_cache", "compilation_cache_dir")
    )
    if switched_on and folder is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
