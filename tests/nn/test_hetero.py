import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.graphs import build_hetero_layout, without_edges
from jaxgkd.nn.hetero import HeteroEncoder
from jaxgkd.nn.named_weights import student_weights
from tests.nn.typed_graph import (
    KINDS,
    N_NODE,
    WIDTH,
    WRITES,
    double,
    layer_norm,
    layout_of,
    linear,
    matrices,
    random_edges,
)

D_IN = {"paper": 5, "author": 0, "venue": 2}


def encoder(kind="sage", layers=2, seed=0):
    return HeteroEncoder(kind, D_IN, N_NODE, KINDS, WIDTH, layers, rngs=nnx.Rngs(seed))


def inputs():
    random = np.random.default_rng(0)
    drawn = {name: jnp.asarray(random.normal(size=(N_NODE[name], d)), jnp.float32) for name, d in D_IN.items() if d}
    return {"paper": drawn["paper"], "author": jnp.arange(4), "venue": drawn["venue"]}


@pytest.fixture(scope="module")
def states():
    model = encoder()
    graphdef, params = nnx.split(model)
    run = jax.jit(lambda params, *given, **options: nnx.merge(graphdef, params)(*given, **options))
    return model, lambda *given, **options: run(params, *given, **options)


def test_layers_are_applied_one_after_another(states):
    model, run = states
    edges = random_edges()
    hidden = run(inputs(), layout_of(edges)).hidden
    assert len(hidden) == 3 and set(model.embeddings) == {"author"} and set(model.project) == {"paper", "venue"}
    state = {name: linear(model.project[name], inputs()[name]) for name in ("paper", "venue")}
    state["author"] = double(model.embeddings["author"])
    for layer in range(3):
        for name in N_NODE:
            np.testing.assert_allclose(hidden[layer][name], state[name], rtol=1e-4, atol=1e-5)
        if layer == 2:
            break
        entering = {name: np.maximum(layer_norm(model.norms[layer][name], x), 0.0) for name, x in state.items()}
        convolution = model.convolutions[layer]
        state = {name: linear(convolution.itself[name], entering[name]) for name in N_NODE}
        for number, (kind, counts) in enumerate((kind, matrices(edges)[kind]) for kind in KINDS):
            share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
            state[kind[2]] = state[kind[2]] + share @ entering[kind[0]] @ double(convolution.kernels)[number]


def test_embeddings_are_learned_by_the_row(states):
    """Rows may be some of the nodes, in any order, and only those asked for have a gradient."""
    model, run = states
    rows = jnp.array([3, 1, 0, 2])
    hidden = run({**inputs(), "author": rows}, layout_of(random_edges())).hidden[0]["author"]
    np.testing.assert_array_equal(hidden, model.embeddings["author"][...][rows])
    graphdef, params = nnx.split(model)
    first = jnp.zeros(4, int)

    def total(params):
        return jnp.sum(
            nnx.merge(graphdef, params)({**inputs(), "author": first}, layout_of(random_edges())).hidden[0]["author"]
        )

    gradient = nnx.to_pure_dict(jax.jit(jax.grad(total))(params))["embeddings"]["author"]
    np.testing.assert_array_equal(gradient, np.eye(4)[:, :1] * np.full((1, WIDTH), 4.0))


def test_a_node_hears_of_what_is_as_many_steps_away_as_there_are_layers(states):
    """An author that is linked to nothing but papers is not heard where those edges are left out."""
    _, run = states
    edges = random_edges()
    thinned = without_edges(layout_of(edges), {WRITES: jnp.ones(len(edges[WRITES][0]), bool)})
    changed = {**inputs(), "author": jnp.zeros(4, int)}
    one, other = run(inputs(), thinned).hidden[-1], run(changed, thinned).hidden[-1]
    np.testing.assert_array_equal(one["paper"], other["paper"])
    one, other = (run(x, layout_of(edges)).hidden[-1] for x in (inputs(), changed))
    assert np.abs(np.asarray(one["paper"] - other["paper"])).max() > 1e-3


def test_dropout_is_for_training_and_follows_its_key(states):
    _, run = states
    layout = layout_of(random_edges())
    plain = run(inputs(), layout).hidden
    one, same, other = (
        run(inputs(), layout, dropout_key=jax.random.key(k), dropout_rate=0.5).hidden for k in (1, 1, 2)
    )
    np.testing.assert_array_equal(one[-1]["paper"], same[-1]["paper"])
    assert np.abs(np.asarray(one[-1]["paper"] - other[-1]["paper"])).max() > 1e-3
    # What is learned for a node is left whole; the inputs of the others are not.
    np.testing.assert_array_equal(one[0]["author"], plain[0]["author"])
    assert np.abs(np.asarray(one[0]["paper"] - plain[0]["paper"])).max() > 1e-3
    none = run(inputs(), layout, dropout_key=jax.random.key(1), dropout_rate=0.0).hidden
    np.testing.assert_allclose(none[-1]["paper"], plain[-1]["paper"], rtol=1e-5)


def test_seeds_give_weights_and_unknown_kinds_are_refused():
    leaves = [jax.tree.leaves(nnx.state(encoder(seed=seed))) for seed in (3, 3, 4)]
    assert all((one == same).all() for one, same in zip(leaves[0], leaves[1], strict=True))
    assert any((one != other).any() for one, other in zip(leaves[0], leaves[2], strict=True))
    with pytest.raises(ValueError, match="'gcn' is no encoder; choose one of rgcn, rgat, hgt, sage"):
        encoder("gcn")


def test_without_layers_there_are_the_projections_alone():
    model = encoder(layers=0)
    hidden = model(inputs(), layout_of(random_edges())).hidden
    assert len(hidden) == 1
    np.testing.assert_allclose(
        hidden[0]["paper"], linear(model.project["paper"], inputs()["paper"]), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["rgcn", "rgat", "hgt", "sage"])
def test_a_type_may_have_the_name_of_a_method(kind):
    """Every type of the graph, with inputs and without any, has each of the names in turn."""
    own = [name for name in dir(nnx.Dict) if not name.startswith("_")]
    assert {"items", "keys", "pop", "train"} <= set(own)
    wanted = encoder(kind, 1)(inputs(), layout_of(random_edges())).hidden
    for first in range(0, len(own), 3):
        called = dict(zip(N_NODE, (own * 2)[first : first + 3], strict=True))
        kinds = [(called[source], name, called[target]) for source, name, target in KINDS]
        edges = {(called[kind[0]], kind[1], called[kind[2]]): ends for kind, ends in random_edges().items()}
        n_node, d_in = ({called[name]: size for name, size in of.items()} for of in (N_NODE, D_IN))
        other = HeteroEncoder(kind, d_in, n_node, kinds, WIDTH, 1, rngs=nnx.Rngs(0))
        given = {called[name]: values for name, values in inputs().items()}
        graphdef, params, rest = nnx.split(other, nnx.Param, ...)
        hidden = nnx.merge(graphdef, params, rest)(given, build_hetero_layout(edges, n_node)).hidden
        for one, same in zip(hidden, wanted, strict=True):
            for name in N_NODE:
                np.testing.assert_allclose(one[called[name]], same[name], rtol=1e-4, atol=1e-5)
        weights = student_weights(params, rest)
        assert f"embeddings.{called['author']}" in weights and f"norms.0.{called['paper']}.scale" in weights
