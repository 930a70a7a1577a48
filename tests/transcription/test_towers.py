"""mlp and esmm against their equations."""

import pytest

CASES = {
    "mlp": ("mlp", "separate", "mlp_objective"),
    "mlp-exposure": (
        "mlp",
        "separate",
        "mlp_objective",
        {"conversion": "exposure"},
        {"conversion": "exposure"},
    ),
    "esmm": ("esmm", "shared", "esmm_objective"),
    "esmm-ns": ("esmm", "separate_tables", "esmm_objective", {"shared_embedding": False}),
    "esmm-two-layers": ("esmm", "shared", "esmm_objective", {"tower": {"hidden": [4, 3], "dropout": [0.0]}}),
}


@pytest.fixture(params=CASES)
def case(request, harness):
    return harness.Case(*CASES[request.param])


def test_forward_and_terms(parity, case):
    parity.everywhere(case)


def test_gradients(parity, case):
    parity.gradients(case)
