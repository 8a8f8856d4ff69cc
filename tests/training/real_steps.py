"""Every recipe's training in small, as the recipes build it: for tests of devices and of lowering."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgkd import language
from jaxgkd.data.brain_graphs import brain_graphs
from jaxgkd.graphs import Budget, ManyGraphs, assemble, assemble_rows, build_layout, from_edges
from jaxgkd.graphs.negatives import KnownEdges
from jaxgkd.nn import make_student
from jaxgkd.nn.alignment import Alignment
from jaxgkd.nn.brain_inputs import BrainInputs, brain_inputs
from jaxgkd.nn.brain_problem import make_batches, taught_brain_problem
from jaxgkd.nn.brain_students import brain_student_maker
from jaxgkd.nn.distilled import DistilledStudent, Objective, distillation_loss, part_means
from jaxgkd.nn.hetero import HeteroEncoder
from jaxgkd.nn.hetero_problem import Drawing, RankedPairs, hetero_problem
from jaxgkd.nn.hetero_tasks import HeteroModel, Links, LinkTask
from jaxgkd.nn.molecule_bags import AtomMLP, bags_of
from jaxgkd.nn.molecule_gcn import MoleculeGCN
from jaxgkd.nn.molecule_problem import DistilledMolecules, molecule_problem
from jaxgkd.nn.molecule_relations import PathRelations
from jaxgkd.nn.molecule_transformer import MoleculeTransformer
from jaxgkd.nn.node_problem import default_optimizer, node_problem
from jaxgkd.nn.taught_molecules import Taught, TaughtStudent, taught_problem
from tests.nn.molecule_rows import ATOM_SIZES, BOND_SIZES, N_BOND_KINDS, molecules
from tests.nn.typed_graph import CITES, KINDS, N_NODE, layout_of, random_edges, random_states

RANDOM = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


def keys(n):
    return jnp.stack([jax.random.key(seed) for seed in range(n)])


def settings(n, **values):
    common = {"learning_rate": 0.01, "weight_decay": 1e-3, "dropout": 0.2}
    return {"settings": {name: jnp.full(n, value, jnp.float32) for name, value in (common | values).items()}}


def nodes(kind, runs=3):
    """LinguGKD: a distilled student on a text graph, with every term."""
    n, hops, d_teacher, classes, parts = 24, 2, 5, 3, 4
    graph, layout = from_edges(normal(n, 6), *RANDOM.integers(n, size=(2, 60)).astype(np.int32), n)
    terms = ("local", "global")
    teacher_states = normal(n, hops, d_teacher)
    part_layout = build_layout(np.arange(n), np.arange(n) % parts, parts, n_senders=n)
    taught = np.stack([np.arange(n) % 4 != seed for seed in range(runs)])
    means = [part_means(teacher_states.reshape(n, -1), jnp.asarray(each), part_layout)[0] for each in taught]

    def make(key):
        student = make_student(kind, 6, 8, hops - 1, classes, key)
        return DistilledStudent(student, Alignment(d_teacher, 8, hops, 1 + len(terms), rngs=nnx.Rngs(params=key)))

    part = RANDOM.integers(3, size=(runs, n))
    run_data = {
        "train": jnp.asarray(part == 0),
        "valid": jnp.asarray(part == 1),
        "labels": jnp.asarray(RANDOM.integers(classes, size=(runs, n)), jnp.int32),
        "class_weights": jnp.ones((runs, classes)),
        "teacher_log_probs": jax.nn.log_softmax(normal(runs, n, classes)),
        "taught": jnp.asarray(taught),
        "taught_nodes": jnp.asarray(np.argsort(~taught, axis=1, kind="stable"), jnp.int32),
        "aligned_classes": jnp.asarray(RANDOM.integers(-1, classes, size=(runs, n)), jnp.int32),
        "part_features": jnp.stack(means).reshape(runs, parts, hops, d_teacher),
        **settings(runs, temperature=2.0, align_temperature=0.5, label=1.0, local=0.3, **{"global": 0.2}),
    }
    shared = {"graph": graph, "layout": layout, "part_layout": part_layout, "teacher_states": teacher_states}
    return node_problem(make, distillation_loss(Objective(terms))), keys(runs), run_data, shared


def typed_nodes(kind, runs=3):
    """LM-GNN: links of a typed graph."""
    edges = random_edges()
    n_edge = len(edges[CITES][0])
    none = jnp.zeros((n_edge, 0), jnp.int32)
    senders, receivers = (jnp.asarray(ends, jnp.int32) for ends in edges[CITES])
    task = LinkTask(CITES)

    def make(key):
        rngs = nnx.Rngs(params=key)
        encoder = HeteroEncoder(kind, {"paper": 8, "author": 0, "venue": 5}, N_NODE, KINDS, 8, 1, rngs=rngs)
        return HeteroModel(encoder, task, 8, rngs=rngs)

    pairs = [(0, 1), (0, 2), (0, 3), (4, 0), (4, 5)]
    ends = (jnp.asarray([pair[end] for pair in pairs]) for end in (0, 1))
    shared = {
        "inputs": {**random_states(3, 5), "author": jnp.arange(4)},
        "layout": layout_of(edges),
        "known": KnownEdges.from_edges(*edges[CITES], 6, 6),
        "train": Links(senders, receivers, none, none.astype(bool), jnp.ones(n_edge)),
        "valid": RankedPairs(*ends, jnp.array([0, 4]), jnp.array([1, 2, 3]), jnp.array([0, 2, 3])),
    }
    return hetero_problem(make, task, Drawing(4, "joint", 3), default_optimizer), keys(runs), settings(runs), shared


def brains(kind, runs=10):
    """BLEG: folds and rows of a repeat, each on batches of its own."""
    n, regions, passes = 24, 8, 2
    values = np.asarray(normal(n, regions, regions))
    connectivity = (values + values.swapaxes(1, 2)) / 2
    if kind == "gcn":
        inputs = brain_inputs(connectivity, brain_graphs(connectivity))
    else:
        inputs = BrainInputs(jnp.asarray(connectivity.reshape(n, -1)))
    part = (np.arange(n) // 2 + np.arange(runs)[:, None]) % 3
    run_data = {
        "batches": jnp.asarray(make_batches([np.flatnonzero(of_run > 0) for of_run in part], 8, passes, 0)),
        "labelled": jnp.asarray(part > 0),
        "valid": jnp.asarray(np.stack([np.flatnonzero(of_run == 0) for of_run in part])),
        "valid_counts": jnp.ones((runs, n // 3), bool),
        "states": normal(runs, n, 3),
        "answers": normal(runs, n, 2),
        **settings(runs, state_strength=1.0, answer_strength=1.0, temperature=1.0),
    }
    shared = {"inputs": inputs, "labels": jnp.arange(n) % 2}
    make = brain_student_maker(kind, regions if kind != "mlp" else regions**2, 8, 1, 2, 3)
    return taught_brain_problem(make, run_data["batches"].shape[1]), keys(runs), run_data, shared


def bags(runs=3):
    """GALLON: students that see a molecule as a bag of atoms."""
    n, tasks = 12, 2
    fields, start = RANDOM.integers(0, (4, 3), (3 * n, 2)), np.arange(0, 3 * n + 1, 3)
    labels = np.where(RANDOM.random((n, tasks)) < 0.3, np.nan, RANDOM.integers(0, 2, (n, tasks))).astype(np.float32)

    def make(key):
        rngs = nnx.Rngs(params=key)
        return TaughtStudent(AtomMLP((4, 3), 4, 2, tasks, rngs=rngs), 4, (5,), rngs=rngs)

    shared = {
        "molecules": bags_of(fields, start),
        "targets": jnp.asarray(labels),
        "taught": Taught(normal(1, n, tasks), (normal(n, 5),), jnp.ones((1, n), bool)),
        "valid_rows": jnp.arange(4),
        "valid_targets": jnp.asarray(labels[:4]),
    }
    run_data = settings(runs, temperature=1.0)
    run_data["settings"] |= {"labels": jnp.ones((runs, 1)), "states": jnp.ones((runs, 1))}
    return taught_problem(make, "classification", "auroc"), keys(runs), run_data, shared


def rows_of_molecules(n=16):
    """CCMD: a student over rows of molecules beside its teacher's states; (problem, batch, settings of two runs)."""
    graphs, paths = molecules(RANDOM.integers(2, 7, n).tolist())
    total = int(graphs.node_start[-1])
    labels = np.asarray(normal(n, 1))
    graphs = ManyGraphs(
        {**graphs.nodes, "teacher": np.asarray(normal(total, 2, 8), np.float16)},
        graphs.edges,
        graphs.senders,
        graphs.receivers,
        {
            "teacher": np.asarray(normal(n, 2, 8), np.float16),
            "placed": np.ones(n, bool),
            "labels": labels,
            "label_mask": np.ones((n, 1), bool),
        },
        graphs.node_start,
        graphs.edge_start,
    )
    batch = assemble_rows(graphs, np.arange(n), Budget(99, 99, n + 1, 6), {"path": paths.kind})

    def make(key):
        rngs = nnx.Rngs(params=key)
        relations = PathRelations(paths, 2, n_bond_kinds=N_BOND_KINDS, rngs=rngs)
        student = MoleculeTransformer(ATOM_SIZES, 8, 2, 2, 1, relations=relations, bond_sizes=BOND_SIZES, rngs=rngs)
        return DistilledMolecules(student, 8, 8, 0, rngs=rngs)

    values = settings(2, local=0.3, power=2.0)["settings"] | {"global": jnp.full((2, 2), 0.3)}
    return molecule_problem(make, "regression", distance="mse"), jax.tree.map(np.asarray, batch), values


def flat_molecules(n=16):
    """GALLON: a graph network over molecules whose atoms lie one after another."""
    graphs, _ = molecules(RANDOM.integers(2, 7, n).tolist())
    globals_ = {"labels": np.asarray(normal(n, 1)), "label_mask": np.ones((n, 1), bool)}
    nodes = {"fields": graphs.nodes["fields"]}
    graphs = ManyGraphs(
        nodes, graphs.edges, graphs.senders, graphs.receivers, globals_, graphs.node_start, graphs.edge_start
    )
    batch = assemble(graphs, np.arange(n), Budget(128, 256, 24, 8))
    make = lambda key: MoleculeGCN(ATOM_SIZES, 8, 2, 1, rngs=nnx.Rngs(params=key))  # noqa: E731
    return molecule_problem(make, "regression"), jax.tree.map(np.asarray, batch), settings(2)["settings"]


def encoder():
    """A small random BERT."""
    shape = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"model_type": "bert", "intermediate_size": 32, "hidden_act": "gelu", "max_position_embeddings": 40}
    shape |= {"type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0, "initializer_range": 0.5}
    return language.initialise(shape, key=jax.random.key(0))
