"""Ten seeds of a distilled GCN with LinguGKD's loss, 200 epochs each: python experiments/benchmarks/distilled_seeds.py

Both sides compute the same: input layer, two graph convolutions and a head; labels, soft labels on every node,
class-masked InfoNCE against projected teacher states at three layers over 256 nodes drawn every epoch, the same over
128 parts of the graph, layer weights from a learned softmax, dropout on input and hidden layer, Adam on a clipped
gradient, validation accuracy after every second epoch.
"""

import numpy as np
from sides import record, take_turns
from ten_seeds import CASE as GRAPH
from ten_seeds import data as graph_data

CLAIM = "ten seeds of a distilled two-layer GCN, 200 epochs each, compilation left out"
CASE = GRAPH | {"hops": 3, "teacher_width": 384, "aligned_nodes": 256, "parts": 128}
STRENGTHS = {"label": 0.3, "soft": 1.0, "local": 0.1, "global": 0.1}
ALIGN_TEMPERATURE = 0.07


def data(case: dict):
    rng = np.random.default_rng(2)
    n = case["nodes"]
    teacher_states = rng.standard_normal((n, case["hops"], case["teacher_width"]), np.float32)
    logits = rng.standard_normal((n, case["classes"])).astype(np.float32)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return *graph_data(case), teacher_states, log_probs, rng.integers(case["parts"], size=n)


def jaxgkd(case: dict):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from jaxgkd.graphs import build_layout, from_edges
    from jaxgkd.nn.alignment import Alignment
    from jaxgkd.nn.distilled import DistilledStudent, Objective, distillation_loss, part_means
    from jaxgkd.nn.encoders import make_student
    from jaxgkd.nn.node_problem import node_problem
    from jaxgkd.training.loop import fit

    senders, receivers, features, labels, train, valid, states, log_probs, part = data(case)
    n, seeds = case["nodes"], case["seeds"]
    graph, layout = from_edges(jnp.asarray(features), senders, receivers, n)
    parts = build_layout(np.arange(n), part, case["parts"], n_senders=n)
    means = part_means(jnp.asarray(states.reshape(n, -1)), jnp.ones(n, bool), parts)[0]
    repeat = lambda a: jnp.repeat(jnp.asarray(a)[None], seeds, axis=0)  # noqa: E731
    settings = {"learning_rate": 0.01, "weight_decay": 5e-4, "dropout": 0.5, "temperature": 1.0}
    settings |= {"align_temperature": ALIGN_TEMPERATURE} | STRENGTHS
    run_data = {
        "train": repeat(train),
        "valid": repeat(valid),
        "labels": repeat(labels.astype(np.int32)),
        "class_weights": jnp.ones((seeds, case["classes"])),
        "teacher_log_probs": repeat(log_probs),
        "taught": jnp.ones((seeds, n), bool),
        "taught_nodes": repeat(np.arange(n, dtype=np.int32)),
        "aligned_classes": repeat(labels.astype(np.int32)),
        "part_features": repeat(means.reshape(case["parts"], case["hops"], -1)),
        "settings": {name: jnp.full(seeds, value) for name, value in settings.items()},
    }
    shared = {"graph": graph, "layout": layout, "part_layout": parts, "teacher_states": jnp.asarray(states)}

    def make(key):
        student = make_student("gcn", case["features"], case["hidden"], 2, case["classes"], key)
        alignment = Alignment(case["teacher_width"], case["hidden"], case["hops"], 4, rngs=nnx.Rngs(params=key))
        return DistilledStudent(student, alignment)

    objective = Objective(("soft", "local", "global"), aligned_nodes=case["aligned_nodes"])
    problem = node_problem(make, distillation_loss(objective))
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    return lambda: fit(problem, keys, run_data, shared, epochs=case["epochs"], evaluate_every=2)


def pyg(case: dict):
    import torch
    import torch.nn.functional as F
    from torch_geometric.nn import GCNConv
    from torch_geometric.utils import scatter

    tensors = [torch.from_numpy(a) for a in data(case)]
    senders, receivers, features, labels, train, valid, states, log_probs, part = tensors
    edges = torch.stack([senders, receivers])
    part_features = scatter(states, part, dim=0, dim_size=case["parts"], reduce="mean")
    width = case["hidden"]

    class Student(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.input = torch.nn.Linear(case["features"], width)
            self.first, self.second = GCNConv(width, width, cached=True), GCNConv(width, width, cached=True)
            self.head = torch.nn.Linear(width, case["classes"])
            self.projections = torch.nn.ModuleList(
                torch.nn.Sequential(
                    torch.nn.LayerNorm(case["teacher_width"]),
                    torch.nn.Linear(case["teacher_width"], width),
                    torch.nn.PReLU(),
                    torch.nn.Linear(width, width),
                )
                for _ in range(case["hops"])
            )
            self.shared = torch.nn.Linear(width, width, bias=False)
            self.layer_weights = torch.nn.Parameter(torch.ones(case["hops"]))

        def forward(self, x):
            hidden = [self.input(F.dropout(x, 0.5, self.training))]
            hidden.append(self.first(hidden[0], edges))
            hidden.append(self.second(F.dropout(hidden[1].relu(), 0.5, self.training), edges))
            return hidden, self.head(hidden[-1])

    def info_nce(anchors, targets, classes):
        scores = F.normalize(anchors, dim=1) @ F.normalize(targets, dim=1).T / ALIGN_TEMPERATURE
        negative = classes[:, None] != classes[None, :]
        others = scores.masked_fill(~negative, -torch.inf).logsumexp(dim=1)
        return F.softplus(others - scores.diagonal()).mean()

    own_part = torch.arange(case["parts"])

    def loss(model):
        hidden, logits = model(features)
        drawn = torch.randperm(case["nodes"])[: case["aligned_nodes"]]
        weights = model.layer_weights.softmax(dim=0)
        local = parts = 0.0
        for hop, (project, state) in enumerate(zip(model.projections, hidden, strict=True)):
            local = local + weights[hop] * info_nce(
                state[drawn], model.shared(project(states[drawn, hop])), labels[drawn]
            )
            means = scatter(state, part, dim=0, dim_size=case["parts"], reduce="mean")
            parts = parts + weights[hop] * info_nce(means, model.shared(project(part_features[:, hop])), own_part)
        label = F.cross_entropy(logits[train], labels[train])
        soft = F.kl_div(logits.log_softmax(dim=1), log_probs, log_target=True, reduction="batchmean")
        terms = {"label": label, "soft": soft, "local": local, "global": parts}
        return sum(STRENGTHS[name] * value for name, value in terms.items())

    def one(seed: int):
        torch.manual_seed(seed)
        model = Student()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
        best = 0.0
        for epoch in range(case["epochs"]):
            model.train()
            optimizer.zero_grad()
            loss(model).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if epoch % 2:
                model.eval()
                with torch.no_grad():
                    right = model(features)[1].argmax(1)[valid] == labels[valid]
                best = max(best, right.float().mean().item())
        return best

    def all_seeds():
        return [one(seed) for seed in range(case["seeds"])]

    all_seeds.warm = lambda: one(0)
    return all_seeds


if __name__ == "__main__":
    seconds = take_turns({"jaxgkd": jaxgkd, "pyg": pyg}, CASE, repetitions=2)
    record("distilled_seeds", CLAIM, [{"case": CASE, "seconds": seconds}])
