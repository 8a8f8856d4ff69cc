"""Five folds of BLEG's third stage with a GCN over 200 regions: python experiments/benchmarks/brain_folds.py

Both sides train the same network, first product computed beforehand, on the labels and on a teacher's states (MSE) and
answers (KL), twenty passes, AdamW on a clipped gradient with a cosine, and score the validation subjects after every
second pass. Ours trains the folds side by side; PyTorch's one after another, each on the batches of its own subjects.
"""

import numpy as np
from sides import record, take_turns

CLAIM = "five folds of a distilled GCN over brains of 200 regions, twenty passes each, compilation left out"
CASE = {"subjects": 820, "regions": 200, "width": 64, "layers": 2, "folds": 5, "passes": 20, "batch": 64}
CASE |= {"components": 32}
SETTINGS = {"learning_rate": 1e-3, "weight_decay": 1e-2, "dropout": 0.3, "temperature": 1.0}
SETTINGS |= {"state_strength": 1.0, "answer_strength": 1.0}


def data(case: dict):
    """Correlations, adjacency, labels, fold by fold (train, valid) rows, and what the teacher says."""
    rng = np.random.default_rng(3)
    n, r = case["subjects"], case["regions"]
    series = rng.standard_normal((n, r, 60), np.float32)
    connectivity = np.stack([np.corrcoef(one) for one in series]).astype(np.float32)
    upper = np.triu(connectivity, 1)
    bound = np.quantile(upper[upper != 0], 0.88)
    adjacency = (upper > bound).astype(np.float32)
    adjacency += adjacency.transpose(0, 2, 1)
    order = rng.permutation(n)
    folds = []
    for test in np.array_split(order, case["folds"]):
        others = np.setdiff1d(order, test)
        chosen = rng.permutation(others)
        folds.append((np.sort(chosen[len(others) // 7 :]), np.sort(chosen[: len(others) // 7])))
    labels = rng.integers(2, size=n)
    states = rng.standard_normal((case["folds"], n, case["components"]), np.float32)
    answers = rng.standard_normal((case["folds"], n, 2), np.float32)
    return connectivity, adjacency, labels, folds, states, answers


def jaxgkd(case: dict):
    from jaxgkd.data.splits import Split
    from jaxgkd.nn.brain_inputs import brain_inputs
    from jaxgkd.nn.brain_students import brain_student_maker
    from jaxgkd.recipes.bleg_students import Course, Lesson, study
    from jaxgkd.recipes.bleg_teacher import Taught

    connectivity, adjacency, labels, folds, states, answers = data(case)
    inputs = brain_inputs(connectivity, adjacency)
    make = brain_student_maker("gcn", case["regions"], case["width"], case["layers"], 2, case["components"])
    everyone = np.arange(case["subjects"])
    lessons = []
    for i, (train, valid) in enumerate(folds):
        test = np.setdiff1d(everyone, np.concatenate([train, valid]))
        split = Split(*(part.astype(np.int32) for part in (train, valid, test)), name=f"fold {i}", seed=0)
        lessons.append(Lesson(split, train, Taught(states[i], answers[i], 0.0, 0), 0, i))
    course = Course(make, case["batch"], case["passes"], 0)
    return lambda: study(course, lessons, {"student_distilled": [SETTINGS]}, inputs, labels)


def pytorch(case: dict):
    import torch
    import torch.nn.functional as F
    from torch import nn

    from jaxgkd.data.brain_graphs import normalised_adjacency

    connectivity, adjacency, labels, folds, states, answers = data(case)
    r, width = case["regions"], case["width"]
    rows = torch.from_numpy(np.where(np.eye(r, dtype=bool), 0, connectivity).astype(np.float32))
    graph = torch.from_numpy(normalised_adjacency(adjacency).astype(np.float32))
    propagated, labels = graph @ rows, torch.from_numpy(labels)
    rate = SETTINGS["dropout"]

    def norm(layer: nn.BatchNorm1d, x: torch.Tensor) -> torch.Tensor:
        return layer(x.flatten(0, 1)).view_as(x)

    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            sizes = [r, *[width] * (case["layers"] - 1)]
            self.layers = nn.ModuleList(nn.Linear(d, width, bias=False) for d in sizes)
            self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in sizes)
            self.before, self.after = nn.BatchNorm1d(width), nn.BatchNorm1d(width)
            self.down, self.up = nn.Linear(width, width // 4), nn.Linear(width // 4, width)
            self.first, self.second = nn.Linear(width, width), nn.Linear(width, 2)
            self.project = nn.Linear(width, case["components"])

        def forward(self, graph, state):
            for i, (layer, each) in enumerate(zip(self.layers, self.norms, strict=True)):
                state = graph @ state if i else state
                state = F.gelu(norm(each, layer(state)), approximate="tanh")
            normed = norm(self.before, state)
            added = F.gelu(norm(self.after, self.up(self.down(normed))), approximate="tanh")
            pooled = (normed + F.dropout(added, rate, self.training)).mean(dim=1)
            state = F.dropout(F.gelu(pooled, approximate="tanh"), rate, self.training)
            state = F.dropout(F.gelu(self.first(state), approximate="tanh"), rate, self.training)
            return self.second(state), self.project(pooled)

    def one(fold: int):
        torch.manual_seed(fold)
        model = Student()
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=SETTINGS["learning_rate"], weight_decay=SETTINGS["weight_decay"]
        )
        train, valid = (torch.from_numpy(part) for part in folds[fold])
        said = torch.from_numpy(states[fold]), torch.from_numpy(answers[fold])
        steps = len(train) // case["batch"]
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, case["passes"] * steps)
        best = 0.0
        for number in range(case["passes"]):
            model.train()
            for batch in train[torch.randperm(len(train))][: steps * case["batch"]].view(steps, -1):
                optimizer.zero_grad()
                logits, projected = model(graph[batch], propagated[batch])
                kl = F.kl_div(
                    logits.log_softmax(-1), said[1][batch].log_softmax(-1), log_target=True, reduction="batchmean"
                )
                loss = F.cross_entropy(logits, labels[batch]) + F.mse_loss(projected, said[0][batch]) + kl
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
            if number % 2:
                model.eval()
                with torch.no_grad():
                    logits, _ = model(graph[valid], propagated[valid])
                positive = (logits[:, 1] - logits[:, 0]).argsort().argsort()[labels[valid] == 1].float()
                best = max(best, float(positive.mean()))
        return best

    def all_folds():
        return [one(fold) for fold in range(case["folds"])]

    all_folds.warm = lambda: one(0)
    return all_folds


if __name__ == "__main__":
    seconds = take_turns({"jaxgkd": jaxgkd, "pytorch": pytorch}, CASE, repetitions=2)
    record("brain_folds", CLAIM, [{"case": CASE, "seconds": seconds}])
