"""Binding plain values to a signature: converted, or refused with every mistake and the likely spelling."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from postclick.binding import Argument, bind, dotted, parameters, parse_assignments, plain
from postclick.errors import ConfigError


@dataclass(frozen=True)
class Migrator:
    gamma: Annotated[float, Argument("share of the neighbours", paper=0.5, low=0.0, high=1.0)] = 0.3
    neighbours: int = 9

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma must be in [0, 1], got {self.gamma}")


@dataclass(frozen=True)
class Reader:
    """A component that is absent by default."""

    words: str = "all"
    speed: Literal["slow", "fast"] = "fast"


@dataclass(frozen=True)
class Settings:
    batch_size: Annotated[int, Argument("rows of a step", paper=2000)] = 1024
    rate: float = 1e-3
    name: str = "adam"
    exact: bool = False
    tower: tuple[int, ...] = (64, 32)
    l2: Literal["none", "batch_rows"] = "none"
    limit: int | None = None
    migrator: Migrator | None = field(default_factory=Migrator)
    reader: Reader | None = None


class System:
    def __init__(self, spec: object, *, dim: Annotated[int, Argument("width")] = 8, trunk: str = "shared") -> None:
        self.dim = dim


def refused(values: dict[str, Any], target: Callable[..., Any] = Settings) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        bind(target, values, where="training")
    assert caught.value.exit_code == 78
    return [str(finding) for finding in caught.value.findings]


# --- signatures -----------------------------------------------------------------------------------------------------


def test_a_signature_is_read_with_types_defaults_and_documentation() -> None:
    found = parameters(Settings)
    assert list(found) == ["batch_size", "rate", "name", "exact", "tower", "l2", "limit", "migrator", "reader"]
    assert found["batch_size"].argument == Argument("rows of a step", paper=2000)
    assert found["batch_size"].default == 1024
    assert found["migrator"].default == Migrator()


def test_a_class_gives_its_constructor_without_self_and_spec() -> None:
    assert {name: entry.default for name, entry in parameters(System).items()} == {"dim": 8, "trunk": "shared"}


def test_a_function_works_as_well() -> None:
    def task(rows: int, *, seed: int = 0) -> None: ...

    assert bind(task, {"rows": 3}, where="")["rows"] == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("batch_size", "int"),
        ("tower", "list of int"),
        ("l2", "'none' | 'batch_rows'"),
        ("limit", "int | None"),
        ("migrator", "Migrator | None"),
    ],
)
def test_types_in_words(name: str, words: str) -> None:
    assert parameters(Settings)[name].type_name == words


# --- values that fit ------------------------------------------------------------------------------------------------


def test_nothing_given_binds_nothing() -> None:
    assert bind(Settings, {}, where="training") == {}


@pytest.mark.parametrize(
    ("given", "bound"),
    [
        ({"batch_size": 4096}, {"batch_size": 4096}),
        ({"rate": 1}, {"rate": 1.0}),
        ({"exact": True}, {"exact": True}),
        ({"tower": [128, 64]}, {"tower": (128, 64)}),
        ({"tower": []}, {"tower": ()}),
        ({"l2": "batch_rows"}, {"l2": "batch_rows"}),
        ({"limit": None}, {"limit": None}),
        ({"limit": "off"}, {"limit": None}),
        ({"limit": 3}, {"limit": 3}),
        ({"migrator": None}, {"migrator": None}),
        ({"migrator": "on"}, {"migrator": Migrator()}),
        ({"reader": "on"}, {"reader": Reader()}),
        ({"reader": {"speed": "slow"}}, {"reader": Reader(speed="slow")}),
        ({"reader": "off"}, {"reader": None}),
        ({"migrator": {"gamma": 0.5}}, {"migrator": Migrator(0.5)}),
        ({"migrator": Migrator(0.1)}, {"migrator": Migrator(0.1)}),
    ],
)
def test_values_are_converted_to_the_declared_type(given: dict[str, Any], bound: dict[str, Any]) -> None:
    result = bind(Settings, given, where="training")
    assert result == bound
    assert [type(value) for value in result.values()] == [type(value) for value in bound.values()]
    Settings(**result)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "batch_size": st.integers(1, 10_000),
            "rate": st.floats(0, 1),
            "name": st.text(max_size=5),
            "exact": st.booleans(),
            "tower": st.lists(st.integers(1, 512), max_size=4),
            "l2": st.sampled_from(["none", "batch_rows"]),
            "limit": st.none() | st.integers(0, 9),
            "migrator": st.none() | st.fixed_dictionaries({"gamma": st.floats(0, 1)}),
        },
    )
)
def test_what_binds_survives_toml_and_binds_again(values: dict[str, Any]) -> None:
    settings = Settings(**bind(Settings, values, where=""))
    again = tomllib.loads(tomli_w.dumps(plain(settings)))
    assert Settings(**bind(Settings, again, where="")) == settings


# --- values that do not ---------------------------------------------------------------------------------------------


def test_an_unknown_key_is_refused_with_the_likely_spelling() -> None:
    assert refused({"bacth_size": 1}) == [
        "config.unknown_key there is no 'bacth_size' | training.bacth_size | did you mean 'batch_size'?"
    ]


def test_a_key_like_no_other_is_refused_with_the_known_names() -> None:
    (text,) = refused({"zzz": 1})
    assert text.startswith("config.unknown_key there is no 'zzz' | training.zzz | known names: batch_size, exact, l2")


def test_spec_is_not_a_parameter() -> None:
    assert refused({"spec": 1}, System)[0].startswith("config.unknown_key there is no 'spec'")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"batch_size": "many"}, "config.value expected int, got str 'many' | training.batch_size"),
        ({"batch_size": 1.5}, "config.value expected int, got float 1.5 | training.batch_size"),
        ({"batch_size": True}, "config.value expected int, got bool True | training.batch_size"),
        ({"rate": True}, "config.value expected float, got bool True | training.rate"),
        ({"exact": 1}, "config.value expected bool, got int 1 | training.exact"),
        ({"name": None}, "config.value expected str, got NoneType None | training.name"),
        ({"l2": "l1"}, "config.value expected 'none' | 'batch_rows', got str 'l1' | training.l2"),
        ({"tower": [1, "b"]}, "config.value expected int, got str 'b' | training.tower[1]"),
        ({"tower": 3}, "config.value expected list of int, got int 3 | training.tower"),
        ({"limit": "x"}, "config.value expected int | None, got str 'x' | training.limit"),
        ({"migrator": 3}, "config.value expected Migrator | None, got int 3 | training.migrator"),
        ({"limit": "on"}, "config.value expected int | None, got str 'on' | training.limit"),
        (
            {"reader": "slow"},
            "config.value expected Reader | None, got str 'slow' | training.reader"
            " | did you mean reader.speed = 'slow'?",
        ),
        ({"reader": "slw"}, "config.value expected Reader | None, got str 'slw' | training.reader"),
        ({"migrator": {"gamma": 2.0}}, "config.value gamma must be in [0, 1], got 2.0 | training.migrator"),
        (
            {"migrator": {"gama": 0.1}},
            "config.unknown_key there is no 'gama' | training.migrator.gama | did you mean 'gamma'?",
        ),
    ],
)
def test_a_value_of_the_wrong_type_names_place_and_types(given: dict[str, Any], text: str) -> None:
    assert refused(given) == [text]


def test_all_mistakes_are_reported_together() -> None:
    texts = refused({"bacth_size": 1, "rate": "fast", "tower": [1, "b"], "migrator": {"gama": 1, "neighbours": "x"}})
    assert len(texts) == 5


def test_defaults_are_not_touched_by_binding() -> None:
    bind(Settings, {"migrator": {"gamma": 0.9}}, where="")
    assert Settings().migrator == Migrator(0.3)


# --- --set ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "value"),
    [
        ([], {}),
        (["a=1"], {"a": 1}),
        (["a=1.5e-3"], {"a": 0.0015}),
        (["a=true"], {"a": True}),
        (["a=[128, 64]"], {"a": [128, 64]}),
        (["a=isotonic"], {"a": "isotonic"}),
        (['a="7"'], {"a": "7"}),
        (["a=off"], {"a": None}),
        (["a="], {"a": ""}),
        (["a=b=c"], {"a": "b=c"}),
        (
            ["training.batch_size=4096", "training.rate=0.1", "dim=8"],
            {"training": {"batch_size": 4096, "rate": 0.1}, "dim": 8},
        ),
        (["migrator.gamma=0.5"], {"migrator": {"gamma": 0.5}}),
    ],
)
def test_assignments(texts: list[str], value: dict[str, Any]) -> None:
    assert parse_assignments(texts) == value


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a"], "expected name=value, got 'a'"),
        (["=1"], "expected name=value, got '=1'"),
        (["a=1", "a=2"], "'a' is set twice"),
        (["a=1", "a.b=2"], "'a' is set both whole and in part"),
        (["a.b=2", "a=1"], "'a' is set twice"),
    ],
)
def test_assignments_that_contradict_are_refused(texts: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match="--set") as caught:
        parse_assignments(texts)
    assert words in str(caught.value)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), st.integers() | st.booleans(), max_size=4))
def test_toml_values_come_through_assignments(values: dict[str, Any]) -> None:
    texts = [f"{name}={str(value).lower()}" for name, value in values.items()]
    assert parse_assignments(texts) == values


def test_plain_values() -> None:
    assert plain({"a": (1, None), "b": Migrator()}) == {"a": [1, "off"], "b": {"gamma": 0.3, "neighbours": 9}}


def test_dotted_names_undo_nesting() -> None:
    nested = parse_assignments(["migrator.gamma=0.5", "training.l2=0.1", "hidden=[8]"])
    assert dotted(nested) == {"migrator.gamma": 0.5, "training.l2": 0.1, "hidden": [8]}
