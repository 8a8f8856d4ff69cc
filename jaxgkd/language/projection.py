"""The linear maps of a layer, with or without low-rank adapters beside them."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from jaxgkd.language.attention import matmul_precision


def project(layer: Mapping[str, Array], name: str, inputs: Array) -> Array:
    """``inputs · kernel + bias``, and ``+ (inputs · a) · b`` where the layer holds an adapter (see ``lora``).

    Args:
      layer: one layer's weights: ``{name}_kernel`` [in, out]; ``{name}_bias`` [out], unless the map has none; for an
        adapter ``{name}_lora_a`` [in, r] and ``{name}_lora_b`` [r, out], scaled; for dropout of the adapter's inputs
        ``{name}_lora_key``, a random key, and ``{name}_lora_keep``, the share that is kept.
      name: of the map.
      inputs: [..., in].

    Returns:
      [..., out].
    """
    precision = matmul_precision(inputs.dtype)
    outputs = jnp.matmul(inputs, layer[f"{name}_kernel"], precision=precision)
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
