"""How long a deep decoder compiles beside a shallow one: python experiments/benchmarks/decoder_depth.py

Llamas of 4 and of 32 layers and otherwise one shape: the program that gives logits, and the training step of adapters.
Nothing is run and no weights are made, so the models may be as large as real ones. Traced and compiled anew each time.
"""

from functools import partial

from sides import record, take_turns

CLAIM = "tracing and compiling a Llama of 4 layers (ours) and of 32, all caches empty"
CASE = {"width": 2048, "vocabulary": 32_000, "batch": 8, "tokens": 512}
LAYERS = (4, 32)


def _abstract_model(case: dict, layers: int):
    """Configuration and the shapes of all weights of a model that is never made."""
    import jax

    from jaxgkd.language import initialise

    values = {
        "model_type": "llama",
        "vocab_size": case["vocabulary"],
        "hidden_size": case["width"],
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 4 * case["width"],
        "max_position_embeddings": 4096,
    }
    made = []

    def weights():
        made.append(initialise(values, key=jax.random.key(0)))
        return made[0].weights()

    shapes = jax.eval_shape(weights)
    return made[0].config, shapes


def logits(case: dict, layers: int):
    import jax
    import jax.numpy as jnp

    from jaxgkd.language import Decoder

    config, weights = _abstract_model(case, layers)
    ids = jax.ShapeDtypeStruct((case["batch"], case["tokens"]), jnp.int32)

    def compile_anew():
        jax.clear_caches()
        program = jax.jit(lambda weights, ids, mask: Decoder(config, weights).logits(ids, mask))
        return program.lower(weights, ids, ids).compile()

    return compile_anew


def adapter_step(case: dict, layers: int):
    import jax
    import jax.numpy as jnp

    from jaxgkd.language import InstructionBatch, LoraConfig, TuningSettings
    from jaxgkd.language.tuning import TuningState, optimiser_of, tuning_step

    config, weights = _abstract_model(case, layers)
    lora, settings = LoraConfig(rank=8), TuningSettings(batch_size=case["batch"])
    optimiser = optimiser_of(settings, 100)
    shape = partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    adapters = {}
    for name in ("query", "value"):
        _, inputs, outputs = weights["layers"][f"{name}_kernel"].shape
        adapters[name] = {"a": shape((layers, inputs, lora.rank)), "b": shape((layers, lora.rank, outputs))}
    ids = jax.ShapeDtypeStruct((case["batch"], case["tokens"]), jnp.int32)
    answers = (case["batch"], 4)
    batch = InstructionBatch(ids, ids, jax.ShapeDtypeStruct(answers, jnp.int32), shape(answers))
    state = TuningState(adapters, jax.eval_shape(optimiser.init, adapters))
    key = jax.eval_shape(lambda: jax.random.key(0))

    def compile_anew():
        jax.clear_caches()
        fixed = {"config": config, "lora": lora, "settings": settings, "optimiser": optimiser}
        return tuning_step.lower(state, weights, batch, key, **fixed).compile()

    return compile_anew


def side(case: dict, *, layers: int):
    return {"logits": logits, "adapter step": adapter_step}[case["program"]](case, layers)


if __name__ == "__main__":
    measured = []
    for program in ("logits", "adapter step"):
        case = CASE | {"program": program}
        sides = {f"layers_{layers}": partial(side, layers=layers) for layers in LAYERS}
        measured.append({"case": case, "seconds": take_turns(sides, case, repetitions=5)})
    record("decoder_depth", CLAIM, measured, ours=f"layers_{LAYERS[0]}")
