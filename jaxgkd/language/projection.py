"""The linear maps of a layer, with or without low-rank adapters beside them."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxgkd.language.attention import matmul_precision


def project(layer: Mapping[str, Array], name: str, inputs: Array) -> Array:
    """``inputs · kernel + bias``, and ``+ (inputs · a) · b`` where the layer holds an adapter (see ``lora``).

    Args:
      layer: one layer's weights: ``{name}_kernel`` [in, out], see also ``quantise``; ``{name}_bias`` [out], unless the
        map has none; for an adapter ``{name}_lora_a`` [in, r] and ``{name}_lora_b`` [r, out], scaled; for dropout of
        the adapter's inputs ``{name}_lora_key``, a random key, and ``{name}_lora_keep``, the share that is kept.
      name: of the map.
      inputs: [..., in].

    Returns:
      [..., out].
    """
    precision = matmul_precision(inputs.dtype)
    kernel = layer[f"{name}_kernel"]
    if is_quantised(kernel):
        outputs = _times_quantised(inputs, kernel)
    else:
        # As rows: XLA on a CPU is slow in gradients of weights whose inputs have more than two axes.
        rows = inputs.reshape(-1, inputs.shape[-1])
        outputs = jnp.matmul(rows, kernel, precision=precision).reshape(*inputs.shape[:-1], -1)
    if f"{name}_bias" in layer:
        outputs = outputs + layer[f"{name}_bias"]
    if f"{name}_lora_a" in layer:
        adapted = inputs
        if f"{name}_lora_key" in layer:
            keep = layer[f"{name}_lora_keep"]
            kept = jax.random.bernoulli(layer[f"{name}_lora_key"], keep, inputs.shape)
            adapted = jnp.where(kept, inputs / keep.astype(inputs.dtype), 0)
        inner = jnp.matmul(adapted, layer[f"{name}_lora_a"].astype(inputs.dtype), precision=precision)
        outputs = outputs + jnp.matmul(inner, layer[f"{name}_lora_b"].astype(inputs.dtype), precision=precision)
    return outputs


def is_quantised(kernel: Any) -> bool:
    """Whether a kernel is kept in few bits, see ``quantise``."""
    return hasattr(kernel, "qvalue")


# Without this the kernel that is put together would be kept, in floating point and for all layers, for the gradient.
@partial(jax.checkpoint, prevent_cse=False)
def _times_quantised(inputs: Array, kernel: Any) -> Array:
    from qwix import dequantize

    return jnp.matmul(inputs, dequantize(kernel).astype(inputs.dtype), precision=matmul_precision(inputs.dtype))
