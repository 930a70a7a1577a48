"""From the names of a system's parameters to the weights that the equations take.

The arrays are not copied: a number changed in the state is changed in the weights.
"""

from __future__ import annotations

import re

__all__ = ["network_weights"]


def layers(state, prefix):
    """Return [(W, b), ...] of a stack of linear layers, in order."""
    found = {int(m[1]) for name in state if (m := re.fullmatch(rf"{re.escape(prefix)}\.steps\.(\d+)\.weight", name))}
    return [(state[f"{prefix}.steps.{step}.weight"], state[f"{prefix}.steps.{step}.bias"]) for step in sorted(found)]


def linear(state, prefix):
    return state[f"{prefix}.linear.weight"], state[f"{prefix}.linear.bias"]


def experts(state, prefix):
    count = len({m[1] for name in state if (m := re.match(rf"{re.escape(prefix)}\.experts\.(\d+)\.", name))})
    return [layers(state, f"{prefix}.experts.{number}") for number in range(count)]


def levels(state, tasks):
    """Return the extraction levels of a PLE trunk whose tasks come in the order `tasks`."""
    found = []
    while f"network.trunk.levels.{len(found)}.gates.0.linear.weight" in state:
        prefix = f"network.trunk.levels.{len(found)}"
        bank = {task: experts(state, f"{prefix}.own.{number}") for number, task in enumerate(tasks)}
        gates = {task: state[f"{prefix}.gates.{number}.linear.weight"] for number, task in enumerate(tasks)}
        if f"{prefix}.shared_gate.linear.weight" in state:
            gates["shared"] = state[f"{prefix}.shared_gate.linear.weight"]
        found.append({"experts": {**bank, "shared": experts(state, f"{prefix}.shared")}, "gates": gates})
    return found


def network_weights(network, state):
    """Return the weights of the named network of the equations."""
    return {
        "separate": _separate,
        "separate_tables": _separate_tables,
        "shared": _task_network,
        "omoe": _task_network,
        "mmoe": _task_network,
        "ple": _task_network,
        "aitm": _aitm,
        "siamese": _twin_towers,
    }[network](state)


def _tasks(state):
    """The tasks of a TaskNetwork in order: a state dict keeps the order of construction."""
    return list(dict.fromkeys(m[1] for name in state if (m := re.match(r"network\.heads\.(\w+)\.", name))))


def _task_network(state):
    tasks = _tasks(state)
    towers = {
        task: {"hidden": layers(state, f"network.towers.{task}"), "head": linear(state, f"network.heads.{task}")}
        for task in tasks
    }
    weights = {"table": state["network.encoder.table.weight"], "towers": towers}
    if "network.trunk.bank.experts.0.steps.0.weight" in state:
        weights["experts"] = experts(state, "network.trunk.bank")
        weights["gate"] = state["network.trunk.gates.0.linear.weight"]
        gates = {task: f"network.trunk.gates.{number}.linear.weight" for number, task in enumerate(tasks)}
        weights["gates"] = {task: state[name] for task, name in gates.items() if name in state}
    weights["levels"] = levels(state, tasks)
    return weights


def _separate_tables(state):
    """A TaskNetwork whose tasks own a table each: the first task's is the encoder's."""
    weights = _task_network(state)
    others = range(len(weights["towers"]) - 1)
    tables = [weights["table"], *(state[f"network.own_encoders.{number}.table.weight"] for number in others)]
    return {**weights, "tables": dict(zip(weights["towers"], tables, strict=True))}


def _separate(state):
    """Two networks of one task each (mlp)."""
    towers, tables = {}, {}
    for task in ("ctr", "conversion"):
        prefix = f"{task}_network"
        towers[task] = {
            "hidden": layers(state, f"{prefix}.towers.{task}"),
            "head": linear(state, f"{prefix}.heads.{task}"),
        }
        tables[task] = state[f"{prefix}.encoder.table.weight"]
    return {"towers": towers, "tables": tables}


def _aitm(state):
    towers = {
        task: {"hidden": layers(state, f"{task}_tower"), "head": linear(state, f"{task}_head")}
        for task in ("ctr", "ctcvr")
    }
    step = {"information": layers(state, "information")[0]}
    step |= {name: state[f"transfer.{part}.weight"] for name, part in (("h1", "value"), ("h2", "query"), ("h3", "key"))}
    return {"table": state["encoder.table.weight"], "towers": towers, "transfers": {"ctcvr": step}}


def _twin_towers(state):
    towers = {
        task: {"hidden": layers(state, f"{task}_tower"), "head": linear(state, f"{task}_head")}
        for task in ("ctr", "action", "purchase")
    }
    tied = not towers["purchase"]["hidden"]
    return {"table": state["encoder.table.weight"], "towers": towers, "twins": {"purchase": "action"} if tied else {}}
