"""Rotary positions: how fast each pair of a head's features turns from one token to the next.

Su et al. 2021, https://arxiv.org/abs/2104.09864. Feature i of a head of width e and feature i + e/2 form a pair that
is turned by the angle ``position · frequency[i]``. Released checkpoints differ in the frequencies only: ``theta`` sets
their range, and a scaling stretches them for texts longer than those of the first training. Which scaling a checkpoint
uses stands in config.json under ``rope_scaling`` (transformers 4, beside ``rope_theta``) or ``rope_parameters``
(transformers 5, with ``rope_theta`` inside).
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgkd.language.config import ConfigFields

KINDS = ("default", "linear", "dynamic", "llama3", "yarn")


@dataclass(frozen=True)
class Rope:
    """The rotation of one model.

    Attributes:
      frequencies: radians from one position to the next, for each of the e/2 pairs.
      scale: the rotated queries and keys are multiplied by this.
    """

    frequencies: tuple[float, ...]
    scale: float = 1.0


def plain_frequencies(theta: float, head_width: int) -> np.ndarray:
    """``theta^(-2i/e)`` for i = 0 … e/2 - 1.

    Reference implementations keep the exponent and the power in float32. The same roundings here keep long texts
    together with theirs: an angle is a frequency times a position.

    Args:
      theta: the longest period, in units of 2π positions.
      head_width: e, even.

    Returns:
      [e/2] float32.
    """
    exponents = np.arange(0, head_width, 2, dtype=np.float32) / np.float32(head_width)
    return np.float32(1.0) / np.power(theta, exponents.astype(np.float64)).astype(np.float32)


def llama3_frequencies(
    plain: np.ndarray, *, factor: float, low_factor: float, high_factor: float, trained_positions: int
) -> np.ndarray:
    """Llama 3.1's scaling: slow frequencies are divided by ``factor``, fast ones kept, those between blended.

    Slow and fast are wavelengths above ``trained_positions / low_factor`` and below ``trained_positions /
    high_factor``; the blend is linear in the number of turns within the trained length. Grattafiori et al. 2024,
    https://arxiv.org/abs/2407.21783.

    Args:
      plain: [e/2] float32.
      factor: by how much texts become longer.
      low_factor: turns within ``trained_positions`` at which slow ends.
      high_factor: turns at which fast begins; above ``low_factor``.
      trained_positions: length of the texts of the first training.

    Returns:
      [e/2] float32.
    """
    wavelength = np.float32(2 * math.pi) / plain
    share = (np.float32(trained_positions) / wavelength - np.float32(low_factor)) / np.float32(high_factor - low_factor)
    slow, fast = trained_positions / low_factor, trained_positions / high_factor
    blended = (1 - share) * plain / np.float32(factor) + share * plain
    scaled = np.where(wavelength > slow, plain / np.float32(factor), plain)
    return np.where((wavelength >= fast) & (wavelength <= slow), blended, scaled).astype(np.float32)


def yarn_frequencies(
    plain: np.ndarray,
    *,
    theta: float,
    factor: float,
    fast_turns: float,
    slow_turns: float,
    trained_positions: int,
    whole_bounds: bool,
) -> np.ndarray:
    """YaRN: pairs that turn often within the trained length are kept, rare ones divided by ``factor``, a ramp between.

    Peng et al. 2023, https://arxiv.org/abs/2309.00071, section 3.2.

    Args:
      plain: [e/2] float32.
      theta: as in ``plain_frequencies``.
      factor: by how much texts become longer.
      fast_turns: turns within ``trained_positions`` at which the ramp begins.
      slow_turns: turns at which it ends.
      trained_positions: length of the texts of the first training.
      whole_bounds: round the ramp's ends outwards to whole pairs.

    Returns:
      [e/2] float32.
    """
    e = 2 * len(plain)

    def pair_with(turns: float) -> float:
        return e * math.log(trained_positions / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_with(fast_turns), pair_with(slow_turns)
    if whole_bounds:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, e - 1)
    # A ramp without length is a step; the reference gives it this much.
    length = high - low or 0.001
    ramp = np.clip((np.arange(e // 2, dtype=np.float32) - np.float32(low)) / np.float32(length), 0, 1)
    return (plain / np.float32(factor) * ramp + plain * (1 - ramp)).astype(np.float32)


def yarn_scale(factor: float, mscale: float | None, mscale_all_dim: float | None) -> float:
    """The scale that YaRN gives queries and keys where the checkpoint does not name it; same paper, section 3.4."""

    def grown(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if mscale is not None and mscale_all_dim is not None:
        return grown(mscale) / grown(mscale_all_dim)
    return grown(1.0)


def read_rope(fields: ConfigFields, *, head_width: int, max_positions: int) -> Rope:
    """Read the rotation from either layout of config.json.

    The ``dynamic`` scaling begins beyond ``max_position_embeddings``, from where on the numbers would depend on how
    long the longest text of a batch is; up to there it is no scaling, and wider batches are refused by the model.

    Args:
      fields: of config.json.
      head_width: e.
      max_positions: ``max_position_embeddings``.

    Returns:
      The rotation.

    Raises:
      UnsupportedModelError: a field would not be reproduced exactly.
    """
    fields.neutral({"partial_rotary_factor": (1, 1.0)})
    theta = fields.number_or_none("rope_theta", None)
    names = [name for name in ("rope_scaling", "rope_parameters") if name in fields]
    ropes = [_read_section(fields, name, theta, head_width, max_positions) for name in names] or [None]
    given = [rope for rope in ropes if rope is not None]
    if len(set(given)) > 1:
        raise fields.refusal("rope_parameters", "rope_scaling says something else")
    if given:
        return given[0]
    return _rope(plain_frequencies(10000.0 if theta is None else theta, head_width))


def _read_section(
    fields: ConfigFields, name: str, theta: float | None, head_width: int, max_positions: int
) -> Rope | None:
    section = fields.section(name)
    if section is None:
        return None
    section.neutral({"partial_rotary_factor": (1, 1.0)})
    own_theta = section.number_or_none("rope_theta", None)
    if None not in (theta, own_theta) and theta != own_theta:
        raise fields.refusal("rope_theta", f"{name} has another one")
    theta = own_theta or theta or 10000.0
    kind = section.choice("type", "default", KINDS)
    if "rope_type" in section:
        named = section.choice("rope_type", kind, KINDS)
        if "type" in section and named != kind:
            raise section.refusal("rope_type", "type says something else")
        kind = named
    plain, scale = plain_frequencies(theta, head_width), 1.0
    if kind in ("linear", "dynamic"):
        factor = section.number("factor", None)
        frequencies = plain / np.float32(factor) if kind == "linear" else plain
        if kind == "dynamic":
            section.neutral({"original_max_position_embeddings": (max_positions,)})
    elif kind == "llama3":
        frequencies = _read_llama3(section, plain, max_positions)
    elif kind == "yarn":
        frequencies, scale = _read_yarn(section, plain, theta, max_positions)
    else:
        frequencies = plain
    section.finish()
    return _rope(frequencies, scale)


def _read_llama3(section: ConfigFields, plain: np.ndarray, max_positions: int) -> np.ndarray:
    low, high = section.number("low_freq_factor", None), section.number("high_freq_factor", None)
    if high <= low:
        raise section.refusal("high_freq_factor", f"it must be above low_freq_factor, {low:g}")
    return llama3_frequencies(
        plain,
        factor=section.number("factor", None),
        low_factor=low,
        high_factor=high,
        trained_positions=section.integer("original_max_position_embeddings", max_positions),
    )


def _read_yarn(section: ConfigFields, plain: np.ndarray, theta: float, max_positions: int) -> tuple[np.ndarray, float]:
    factor = section.number("factor", None)
    frequencies = yarn_frequencies(
        plain,
        theta=theta,
        factor=factor,
        fast_turns=section.number_or_none("beta_fast", 32.0) or 32.0,
        slow_turns=section.number_or_none("beta_slow", 1.0) or 1.0,
        trained_positions=section.integer("original_max_position_embeddings", max_positions),
        whole_bounds=section.flag("truncate", True),
    )
    scale = section.number_or_none("attention_factor", None)
    mscale, mscale_all_dim = section.number_or_none("mscale", None), section.number_or_none("mscale_all_dim", None)
    return frequencies, yarn_scale(factor, mscale, mscale_all_dim) if scale is None else scale


def _rope(frequencies: np.ndarray, scale: float = 1.0) -> Rope:
    return Rope(tuple(frequencies.tolist()), scale)


def rotation(rope: Rope, positions: Array) -> tuple[Array, Array]:
    """Cosine and sine of every angle, times the rope's scale.

    Args:
      rope: the model's rotation.
      positions: [b, t] whole numbers.

    Returns:
      Two arrays [b, t, e/2], float32.
    """
    angles = positions.astype(jnp.float32)[..., None] * jnp.asarray(rope.frequencies, jnp.float32)
    return jnp.cos(angles) * rope.scale, jnp.sin(angles) * rope.scale


def rotate(states: Array, turn: tuple[Array, Array]) -> Array:
    """Turn every head of queries or keys by its token's angles, in float32.

    Args:
      states: [b, heads, t, e].
      turn: cosine and sine, [b, t, e/2] each; see ``rotation``.

    Returns:
      [b, heads, t, e] in the dtype of ``states``.
    """
    cosine, sine = (array[:, None] for array in turn)
    first, second = jnp.split(states.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(states.dtype)
