"""A bundle: written, loaded, refused (TRUST B01 to B04)."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import load as load_arrays

from postclick import files
from postclick.bundle import Bundle, Scorer
from postclick.bundle.bundle import REFERENCE_ROWS
from postclick.data.log import from_arrow
from postclick.data.scores import probability
from postclick.errors import BundleError, DataError, TrustError


@pytest.fixture
def copied(tmp_path, small_run):
    """A copy of a good bundle, to be spoilt."""
    return shutil.copytree(small_run.path / "bundle", tmp_path / "bundle")


def respoil(folder):
    """Write a manifest that vouches for what is there now, as an attacker would."""
    (folder / files.MANIFEST).unlink()
    files.write_manifest(folder, "bundle")


def change_json(path, change):
    form = json.loads(path.read_text())
    change(form)
    path.write_text(json.dumps(form))


def test_a_run_and_its_bundle_load_alike(small_run):
    one, other = Bundle.load(small_run.path), Bundle.load(small_run.path / "bundle")
    assert one.hash == other.hash == small_run.bundle
    assert one.header.system == "esmm"
    assert one.header.log == small_run.log
    assert not one.model.training
    assert not any(parameter.requires_grad for parameter in one.model.parameters())


def test_reference_rows_recompute(small_run):
    bundle = Bundle.load(small_run.path)
    with pa.ipc.open_file(small_run.path / "bundle" / "reference.arrow") as reader:
        batch = reader.get_batch(0)
    assert batch.num_rows == REFERENCE_ROWS
    scores = Scorer(bundle).score(from_arrow(batch, bundle.schema))
    for head in ("ctr", "cvr", "ctcvr"):
        assert np.asarray(batch.column(f"odds:{head}")) == pytest.approx(scores.odds[head], abs=1e-6)


def test_ten_rows_by_a_hand_written_forward_pass(small_run, small_log, raw_table):
    """ESMM in NumPy from the files of the bundle alone: gather, concatenate, two towers, calibrate, multiply."""
    folder = small_run.path / "bundle"
    weights = load_arrays((folder / "model.safetensors").read_bytes())
    calibration = json.loads((folder / "calibration.json").read_text())["heads"]
    assert {entry["method"] for entry in calibration.values()} == {"platt"}
    exposures = small_log.split("test").read().take(np.arange(10))

    looked_up = weights["network.encoder.table.weight"][exposures.rows].reshape(10, -1)
    inputs = np.concatenate([looked_up, exposures.dense], axis=1)
    odds = {}
    for head in ("ctr", "cvr"):
        hidden = inputs.astype(np.float64)
        for layer in (0, 3):  # linear, relu, dropout each
            matrix, bias = (weights[f"network.towers.{head}.steps.{layer}.{name}"] for name in ("weight", "bias"))
            hidden = np.maximum(hidden @ matrix.T + bias, 0.0)
        last = f"network.heads.{head}.linear"
        raw = (hidden @ weights[f"{last}.weight"].T + weights[f"{last}.bias"])[:, 0]
        odds[head] = calibration[head]["slope"] * raw + calibration[head]["offset"]

    served = Scorer(Bundle.load(folder)).score_table(raw_table.slice(len(raw_table) * 8 // 10, 10)).scores
    for head in ("ctr", "cvr"):
        assert served.probability(head) == pytest.approx(probability(odds[head]), abs=1e-6)
    product = probability(odds["ctr"]) * probability(odds["cvr"])
    assert served.probability("ctcvr") == pytest.approx(product, abs=1e-6)


def test_loading_runs_nothing_opens_nothing_else_and_writes_nothing(small_run):
    """TRUST, security 2: seen by the interpreter's audit hook."""
    Bundle.load(small_run.path)  # what is imported once is imported now
    seen, active = [], [True]

    def hook(event, arguments):
        if active[0]:
            seen.append((event, arguments))

    sys.addaudithook(hook)
    Bundle.load(small_run.path)
    active[0] = False
    opened = [arguments for event, arguments in seen if event == "open"]
    assert opened
    assert all("w" not in str(mode) and "a" not in str(mode) for _, mode, _ in opened)
    assert all(str(small_run.path) in str(path) or isinstance(path, int) for path, _, _ in opened)
    # compile and exec are there: our own annotations are resolved by typing.get_type_hints
    forbidden = ("import", "pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "socket.connect")
    assert [event for event, _ in seen if event in forbidden] == []


def test_weights_that_do_not_fit_the_system(copied):
    change_json(copied / "model.json", lambda form: form["arguments"].update({"embedding_size": 5}))
    respoil(copied)
    with pytest.raises(TrustError, match=r"bundle\.malformed the system has"):
        Bundle.load(copied)


def test_a_huge_architecture_fills_no_memory(copied):
    def change(form):
        form["arguments"]["tower"] = {"hidden": [2**20, 2**20, 2**20], "dropout": [0.0]}

    change_json(copied / "model.json", change)
    respoil(copied)
    with pytest.raises(TrustError, match=r"bundle\.malformed"):
        Bundle.load(copied)


@pytest.mark.parametrize("change", [{"system": "never"}, {"arguments": {"no_such": 1}}, {"format": 2}])
def test_what_another_version_wrote(copied, change):
    change_json(copied / "model.json", lambda form: form.update(change))
    respoil(copied)
    with pytest.raises(BundleError, match=r"bundle\.version") as caught:
        Bundle.load(copied)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("schema.toml", "not [ toml"),
        ("schema.toml", "\udcff"),
        ("calibration.json", "{}"),
        ("model.json", "[]"),
        ("vocabulary/vocabulary.json", "{}"),
        ("vocabulary/vocabulary.json", '{"format": 1, "table_rows": 3, "fields": []}'),
        ("vocabulary/000.arrow", "no arrow"),
        ("vocabulary/transforms.json", '{"format": 1, "features": [3]}'),
    ],
)
def test_malformed_files_behind_a_good_manifest(copied, name, text):
    (copied / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    respoil(copied)
    with pytest.raises((TrustError, BundleError)) as caught:
        Bundle.load(copied)
    assert caught.value.code == "bundle.malformed"


def test_vocabulary_rows_outside_the_table(copied):
    place = copied / "vocabulary" / "000.arrow"
    table = pa.ipc.open_file(place.read_bytes()).read_all()
    rows = pa.array(np.asarray(table.column("row")) + 10_000, pa.int32())
    table = table.set_column(table.schema.get_field_index("row"), "row", rows)
    with pa.OSFile(str(place), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    respoil(copied)
    with pytest.raises(TrustError, match="outside the table"):
        Bundle.load(copied)


def test_a_missing_file_is_named(copied):
    (copied / "calibration.json").unlink()
    respoil(copied)
    with pytest.raises(TrustError, match=r"a bundle needs calibration\.json"):
        Bundle.load(copied)


def test_a_bundle_without_its_encoder(copied):
    shutil.rmtree(copied / "vocabulary")
    respoil(copied)
    with pytest.raises(BundleError, match=r"bundle\.version the bundle holds no encoder") as caught:
        Bundle.load(copied)
    assert caught.value.exit_code == 78


def test_a_log_of_another_vocabulary_is_refused_with_the_command_that_helps(
    small_run, raw_table, small_schema, tmp_path
):
    from postclick.data.prepare import PrepareOptions, prepare
    from postclick.data.sources.opening import open_source

    source = open_source(test=raw_table.slice(0, 500), train=raw_table.slice(500, 500), schema=small_schema)
    other = prepare(source, tmp_path / "other", PrepareOptions(min_count=1))
    with pytest.raises(DataError, match=r"data\.vocabulary_mismatch.*--vocabulary"):
        Bundle.load(small_run.path).require_fit(other)
    source = open_source(test=raw_table.slice(0, 500), schema=small_schema)
    same = prepare(source, tmp_path / "same", PrepareOptions(vocabulary=small_run.path))
    Bundle.load(small_run.path).require_fit(same)


def test_equal_weights_give_equal_bytes_whatever_the_strides(small_run, tmp_path):
    from postclick.bundle.weights import write_weights

    model = Bundle.load(small_run.path).model
    write_weights(tmp_path / "one", model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.set_(parameter.t().contiguous().t())
    write_weights(tmp_path / "other", model)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert (tmp_path / "one").read_bytes() == (small_run.path / "bundle" / "model.safetensors").read_bytes()
