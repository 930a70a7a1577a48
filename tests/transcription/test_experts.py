"""omoe, mmoe and ple, and the trunks under other objectives, against their equations."""

import pytest

SMALL = {"hidden": [3], "dropout": [0.0]}
MIXED = {"experts": {**SMALL, "count": 4}}
# Three experts a task beside two shared ones: the public index i * task_num + j would take others.
ONE_LEVEL = {"experts": {**SMALL, "specific": 3, "shared": 2, "levels": 1}}
TWO_LEVELS = {"experts": {**SMALL, "specific": 3, "shared": 2, "levels": 2}}
FEW = {"experts": {**SMALL, "specific": 1, "shared": 1, "levels": 2}}
CVR = {"conversion": "cvr"}
CASES = {
    "omoe": ("omoe", "omoe", "heads_objective", MIXED),
    "omoe-cvr": ("omoe", "omoe", "heads_objective", {**MIXED, **CVR}, CVR),
    "mmoe": ("mmoe", "mmoe", "heads_objective", MIXED),
    "mmoe-cvr": ("mmoe", "mmoe", "heads_objective", {**MIXED, **CVR}, CVR),
    "mmoe-no-tower": ("mmoe", "mmoe", "heads_objective", {**MIXED, "tower": {"hidden": [], "dropout": [0.0]}}),
    "ple-1": ("ple", "ple", "heads_objective", ONE_LEVEL),
    "ple-1-cvr": ("ple", "ple", "heads_objective", {**ONE_LEVEL, **CVR}, CVR),
    "ple-2": ("ple", "ple", "heads_objective", TWO_LEVELS),
    "ple-2-cvr": ("ple", "ple", "heads_objective", {**TWO_LEVELS, **CVR}, CVR),
    "esmm-mmoe": ("esmm", "mmoe", "esmm_objective", {**MIXED, "trunk": "mmoe"}),
    "esmm-ple": ("esmm", "ple", "esmm_objective", {**FEW, "trunk": "ple"}),
    "esm2-ple": ("esm2", "ple", "esm2_objective", {**FEW, "trunk": "ple"}),
}


@pytest.fixture(params=CASES)
def case(request, harness):
    return harness.Case(*CASES[request.param])


def test_forward_and_terms(parity, case):
    parity.everywhere(case)


def test_gradients(parity, case):
    parity.gradients(case)
