"""esm2, esmc, esms and esmg against their equations."""

import pytest

CHAIN = {"other_action": False}
HELD = {"constraint": 0.3}
THREE, FOUR = {"weights": (0.5, 1.5, 0.7)}, {"weights": (0.5, 1.5, 0.7, 1.2)}


def esm2(**options):
    return ("esm2", "shared", "esm2_objective", options, options)


def twins(key, objective, arguments, **options):
    return (key, "siamese", f"{objective}_objective", arguments, options)


CASES = {
    "esm2": esm2(),
    "esm2-weights": esm2(**FOUR, purchase="both"),
    "esm2-direct": esm2(purchase="direct"),
    "chain": esm2(**CHAIN),
    "chain-direct": esm2(**CHAIN, purchase="direct"),
    "chain-both": esm2(**CHAIN, purchase="both"),
    "chain-global": esm2(**CHAIN, purchase="global"),
    "esmc": twins("esmc", "esmc", HELD, strength=0.3),
    "esmc-weights": twins("esmc", "esmc", {**HELD, **THREE}, strength=0.3, **THREE),
    "esms": twins("esms", "esmc", {}),
    "esms-weights": twins("esms", "esmc", THREE, **THREE),
    "esmg": twins("esmg", "esmg", HELD, strength=0.3),
    "esmg-weights": twins("esmg", "esmg", {**HELD, **THREE}, strength=0.3, **THREE),
}


@pytest.fixture(params=CASES)
def case(request, harness):
    return harness.Case(*CASES[request.param])


def test_forward_and_terms(parity, case):
    parity.everywhere(case)


def test_gradients(parity, case):
    parity.gradients(case)
