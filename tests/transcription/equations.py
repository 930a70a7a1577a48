"""The systems' equations in plain NumPy: written from the papers' mathematics, not from the PyTorch code.

Float64, plain probabilities, loops where a formula has an index. A network takes features and weights and returns one
logit a task; an objective takes logits and returns what it estimates and its loss terms.

Shapes: B rows, F fields, E embedding, D input width, K experts, T tasks, H hidden.

Weights are dictionaries: ``table`` [R, E]; a tower is ``{"hidden": [(W, b), ...], "head": (w, b)}`` with W [H, D].
"""

from __future__ import annotations

import math

import numpy as np

__all__ = [
    "aitm",
    "aitm_objective",
    "bce",
    "cgc",
    "esm2_objective",
    "esmc_objective",
    "esmg_objective",
    "esmm_objective",
    "features",
    "heads_objective",
    "mean",
    "mixture",
    "mlp_objective",
    "mmoe",
    "omoe",
    "ple",
    "separate",
    "shared",
    "siamese",
    "sigmoid",
]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def relu(z):
    return np.where(z > 0, z, 0.0)


def softmax(z):
    e = np.exp(z)
    return e / e.sum(1, keepdims=True)


def bce(y, f):
    """l(y, f) = -[y log f + (1 - y) log(1 - f)], [B]."""
    return -(y * np.log(f) + (1 - y) * np.log(1 - f))


def mean(values, weight, space=None):
    """Mean over the rows of a sample space, 1 / sum of weights; 0 where the space is empty."""
    space = np.ones(len(values), int) if space is None else space
    total = (weight * space).sum()
    return (weight * space * values).sum() / total if total > 0 else 0.0


# --- features -------------------------------------------------------------------------------------------------------


def features(x, table):
    """v = concat_j e_j(x), [B, D]: single-valued fields, pooled multi-valued fields, numbers, vectors."""
    parts = [table[x["rows"][:, field]] for field in range(x["rows"].shape[1])]
    for rows, pooling in x["sequences"]:
        parts.append(np.stack([pool(values, weights, pooling, table) for values, weights in rows]))
    return np.concatenate([*parts, x["dense"], x["embeddings"]], axis=1)


def pool(values, weights, pooling, table):
    """sum_l w_l e_l, divided by sum_l w_l for a mean; an empty list is the zero vector."""
    total = sum(
        (weight * table[value] for value, weight in zip(values, weights, strict=True)), np.zeros(table.shape[1])
    )
    return total / sum(weights) if pooling == "mean" and values else total


# --- networks -------------------------------------------------------------------------------------------------------


def mlp(v, hidden):
    for w, b in hidden:
        v = relu(v @ w.T + b)
    return v


def tower(v, weights):
    """w^T h + b with h = ReLU(W_l .. ReLU(W_1 v)), [B]."""
    w, b = weights["head"]
    return mlp(v, weights["hidden"]) @ w.reshape(-1) + b.reshape(())


def separate(x, weights):
    """Every task its own embeddings and tower: a single-task model each (section 1; ESMM-NS)."""
    return {task: tower(features(x, weights["tables"][task]), net) for task, net in weights["towers"].items()}


def shared(x, weights):
    """Embeddings shared by every tower, everything after them separate (section 2)."""
    v = features(x, weights["table"])
    return {task: tower(v, net) for task, net in weights["towers"].items()}


def siamese(x, weights):
    """`shared`, but a tower may name another whose hidden layers it takes: theta_a = theta_b (ESMS, section 12)."""
    v, towers = features(x, weights["table"]), weights["towers"]
    hidden = {task: towers[weights["twins"].get(task, task)]["hidden"] for task in towers}
    return {task: tower(v, {"hidden": hidden[task], "head": towers[task]["head"]}) for task in towers}


def mmoe(x, weights):
    """f^k(x) = sum_i g^k(x)_i f_i(x), g^k = softmax(W_gk x) without bias, y_k = h_k(f^k(x)) (sections 4/5)."""
    v = features(x, weights["table"])
    experts = [mlp(v, hidden) for hidden in weights["experts"]]
    return {task: tower(mixture(v, weights["gates"][task], experts), net) for task, net in weights["towers"].items()}


def omoe(x, weights):
    """One gate g(x) for all tasks: every tower receives the same mixture."""
    v = features(x, weights["table"])
    same = mixture(v, weights["gate"], [mlp(v, hidden) for hidden in weights["experts"]])
    return {task: tower(same, net) for task, net in weights["towers"].items()}


def mixture(v, gate, experts):
    """sum_i g_i f_i with g = softmax(W v), [B, H]."""
    share = softmax(v @ gate.T)
    return sum(share[:, [i]] * expert for i, expert in enumerate(experts))


def ple(x, weights):
    """Extraction levels, eqs. (1)-(7): a task gate weighs its own and the shared experts, the shared gate all of them.

    ``levels``: a list of ``{"experts": {task or "shared": [hidden, ...]}, "gates": {task or "shared": W}}``; the last
    level has no shared gate.
    """
    v = features(x, weights["table"])
    tasks = list(weights["towers"])
    g = dict.fromkeys([*tasks, "shared"], v)  # g^{k,0} = g^{s,0} = x
    for level in weights["levels"]:
        experts = {name: [mlp(g[name], hidden) for hidden in level["experts"][name]] for name in g}
        seen = {task: experts[task] + experts["shared"] for task in tasks}
        seen["shared"] = [expert for task in tasks for expert in experts[task]] + experts["shared"]
        g = {name: mixture(g[name], gate, seen[name]) for name, gate in level["gates"].items()}
    return {task: tower(g[task], net) for task, net in weights["towers"].items()}


def cgc(x, weights):
    """One extraction level as eqs. (1)-(4) have it: w^k(x) = softmax(W_g^k x), g^k = w^k(x) S^k(x), y^k = t^k(g^k)."""
    v, (level,) = features(x, weights["table"]), weights["levels"]
    logits = {}
    for task, net in weights["towers"].items():
        s = [mlp(v, hidden) for hidden in level["experts"][task] + level["experts"]["shared"]]
        w = softmax(v @ level["gates"][task].T)
        logits[task] = tower(np.einsum("bk,kbh->bh", w, np.stack(s)), net)
    return logits


def aitm(x, weights):
    """Adaptive information transfer along the steps (section 7).

    ``tasks`` in order; ``towers[t]["hidden"]`` makes q_t and ``["head"]`` y_t; ``transfers[t]``, for every t but the
    first: ``{"information": (W, b), "h1": W, "h2": W, "h3": W}``.
    """
    v, logits, z = features(x, weights["table"]), {}, None
    for task, net in weights["towers"].items():
        q = mlp(v, net["hidden"])
        z = q if z is None else transfer(z, q, weights["transfers"][task])
        w, b = net["head"]
        logits[task] = z @ w.reshape(-1) + b.reshape(())
    return logits


def transfer(z, q, weights):
    """z_t = sum_{u in {p, q}} w_u h_1(u), w = softmax(s), s_u = <h_2(u), h_3(u)> / sqrt(k), p = g(z_{t-1})."""
    p = mlp(z, [weights["information"]])
    k = q.shape[1]
    scores = [((u @ weights["h2"].T) * (u @ weights["h3"].T)).sum(1) / math.sqrt(k) for u in (p, q)]
    share = softmax(np.stack(scores, 1))
    return share[:, [0]] * (p @ weights["h1"].T) + share[:, [1]] * (q @ weights["h1"].T)


# --- objectives: logits and labels -> estimates, loss terms ---------------------------------------------------------


def mlp_objective(logits, y, conversion="click"):
    """Two single-task models: o on D, and r on the clicks or t on D; averages over D (Decision 2)."""
    if conversion == "exposure":
        return heads_objective({"ctr": logits["ctr"], "ctcvr": logits["conversion"]}, y)
    p, q = sigmoid(logits["ctr"]), sigmoid(logits["conversion"])
    terms = {
        "ctr": mean(bce(y["click"], p), y["weight"]),
        "cvr": mean(y["click"] * bce(y["conversion"], q), y["weight"]),
    }
    return {"ctr": p, "cvr": q, "ctcvr": p * q}, terms


def heads_objective(logits, y, conversion="ctcvr"):
    """L = sum_k L_k, L_k a mean over task k's sample space: t on D for a CTCVR head, r on O for a CVR head."""
    o, t = y["click"], y["click"] * y["conversion"]
    p, f = sigmoid(logits["ctr"]), sigmoid(logits[conversion])
    terms = {"ctr": mean(bce(o, p), y["weight"])}
    if conversion == "ctcvr":
        terms["ctcvr"] = mean(bce(t, f), y["weight"])
        return {"ctr": p, "cvr": np.minimum(f / p, 1), "ctcvr": f}, terms
    terms["cvr"] = mean(bce(y["conversion"], f), y["weight"], o)
    return {"ctr": p, "cvr": f, "ctcvr": p * f}, terms


def esmm_objective(logits, y):
    """L = l(o, p) + l(o r, p q), both over D; no loss on the CVR head itself (section 2)."""
    o, t = y["click"], y["click"] * y["conversion"]
    p, q = sigmoid(logits["ctr"]), sigmoid(logits["cvr"])
    terms = {"ctr": mean(bce(o, p), y["weight"]), "ctcvr": mean(bce(t, p * q), y["weight"])}
    return {"ctr": p, "cvr": q, "ctcvr": p * q}, terms


def aitm_objective(logits, y, alpha=0.6):
    """L = L_ce + alpha L_lc, L_lc = 1/N sum_i sum_{t >= 2} max(y_t - y_{t-1}, 0)."""
    o, t = y["click"], y["click"] * y["conversion"]
    p, f = sigmoid(logits["ctr"]), sigmoid(logits["ctcvr"])
    terms = {
        "ctr": mean(bce(o, p), y["weight"]),
        "ctcvr": mean(bce(t, f), y["weight"]),
        "calibrator": alpha * mean(np.maximum(f - p, 0), y["weight"]),
    }
    return {"ctr": p, "cvr": np.minimum(f / p, 1), "ctcvr": f}, terms


def esm2_objective(logits, y, other_action=True, purchase="joint", weights=(1, 1, 1, 1)):
    """y1 = P(click), y2 = P(action | click), y3 = P(buy | action), y4 = P(buy | other): three losses over D.

    Without the other action the chain y1 y2 y3 is all there is (Decision 7). ``direct`` puts l(r, y3) on {o=1, a=1} and
    l(r, y4) on {o=1, a=0} in the place of the third loss, ``both`` beside it; ``global`` puts l(t, y3) on {a=1}.
    """
    o, a, r, t = y["click"], y["action"], y["conversion"], y["click"] * y["conversion"]
    y1, y2, y3 = (sigmoid(logits[name]) for name in ("ctr", "action", "purchase_action"))
    y4 = sigmoid(logits["purchase_other"]) if other_action else 0 * y3
    cvr = y2 * y3 + (1 - y2) * y4
    direct = o * a * bce(r, y3) + (o * (1 - a) * bce(r, y4) if other_action else 0)
    terms = {
        "ctr": weights[0] * mean(bce(o, y1), y["weight"]),
        "ctar": weights[1] * mean(bce(o * a, y1 * y2), y["weight"]),
        "ctcvr": weights[2] * mean(bce(t, y1 * cvr), y["weight"]),
        "purchase": weights[3] * mean({"global": a * bce(t, y3)}.get(purchase, direct), y["weight"]),
    }
    for absent in {"joint": ["purchase"], "both": []}.get(purchase, ["ctcvr"]):
        del terms[absent]
    return {"ctr": y1, "cvr": cvr, "ctcvr": y1 * cvr, "action": y2, "ctar": y1 * y2}, terms


def esmc_objective(logits, y, weights=(1, 1, 1), towers=None, strength=0.0):
    """Click, and two twin towers composed directly after it: P(a | o) and P(b | o); + lambda Omega (section 12)."""
    o, a, t = y["click"], y["action"], y["click"] * y["conversion"]
    y1, y2, y3 = (sigmoid(logits[name]) for name in ("ctr", "action", "purchase"))
    terms = {
        "ctr": weights[0] * mean(bce(o, y1), y["weight"]),
        "ctar": weights[1] * mean(bce(o * a, y1 * y2), y["weight"]),
        "ctcvr": weights[2] * mean(bce(t, y1 * y3), y["weight"]),
    }
    if towers is not None:
        terms["constraint"] = strength * distance(towers["action"], towers["purchase"])
    return {"ctr": y1, "cvr": y3, "ctcvr": y1 * y3, "action": y2, "ctar": y1 * y2}, terms


def esmg_objective(logits, y, weights=(1, 1, 1), towers=None, strength=0.0):
    """Every head over D: l(o, g1), l(o a, g2), l(t, g3); P(b | o) is g3 / g1, clipped (section 12)."""
    o, a, t = y["click"], y["action"], y["click"] * y["conversion"]
    g1, g2, g3 = (sigmoid(logits[name]) for name in ("ctr", "action", "purchase"))
    terms = {
        "ctr": weights[0] * mean(bce(o, g1), y["weight"]),
        "ctar": weights[1] * mean(bce(o * a, g2), y["weight"]),
        "ctcvr": weights[2] * mean(bce(t, g3), y["weight"]),
    }
    if towers is not None:
        terms["constraint"] = strength * distance(towers["action"], towers["purchase"])
    heads = {"ctr": g1, "cvr": np.minimum(g3 / g1, 1), "ctcvr": g3}
    return {**heads, "action": np.minimum(g2 / g1, 1), "ctar": g2}, terms


def distance(one, other):
    """Omega = sum over hidden layers of ||W_a - W_b||_F^2, biases as weights."""
    pairs = zip(one["hidden"], other["hidden"], strict=True)
    return sum(((w - v) ** 2).sum() + ((b - c) ** 2).sum() for (w, b), (v, c) in pairs)
