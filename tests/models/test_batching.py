"""Arrays become tensors without a copy where they can, and censored rows leave every sum."""

import dataclasses

import numpy as np
import pytest
import torch

from postclick.data.arrays import CENSORED
from postclick.errors import DataError
from postclick.losses.reduce import mean_over_exposures
from postclick.models.base import Batch
from postclick.models.batching import batch_action, batch_labels, to_batch, to_features


def test_features_share_memory_and_keep_their_types(exposures):
    given = exposures()
    features = to_features(given)
    assert features.rows.data_ptr() == given.rows.ctypes.data
    assert features.dense.data_ptr() == given.dense.ctypes.data
    assert features.sequences[0].values.data_ptr() == given.sequences[0].values.ctypes.data
    kinds = (features.rows.dtype, features.dense.dtype, features.embeddings.dtype)
    assert kinds == (torch.int32, torch.float32, torch.float32)
    sequence = features.sequences[0]
    assert (sequence.values.dtype, sequence.offsets.dtype) == (torch.int32, torch.int64)
    assert torch.equal(sequence.weights, torch.from_numpy(given.sequences[0].weights))
    assert len(to_batch(given)) == len(given)


def test_read_only_arrays_are_copied_without_a_warning(exposures):
    given = exposures()
    for array in (given.rows, given.dense, given.embeddings, given.sequences[0].values, given.sequences[0].offsets):
        array.flags.writeable = False
    features = to_features(given)
    assert features.rows.data_ptr() != given.rows.ctypes.data
    np.testing.assert_array_equal(features.rows.numpy(), given.rows)


def test_labels_become_floats(exposures):
    propensity = np.linspace(0.1, 0.9, 12)
    given = exposures(action=np.tile(np.array([0, 1], np.int8), 6), propensity=propensity)
    batch = to_batch(given)
    assert batch.click.dtype == batch.conversion.dtype == batch.action.dtype == torch.float32
    np.testing.assert_array_equal(batch.click.numpy(), given.labels.click)
    np.testing.assert_array_equal(batch.conversion.numpy(), given.labels.conversion)
    np.testing.assert_array_equal(batch.action.numpy(), given.labels.action)
    np.testing.assert_allclose(batch.propensity.numpy(), propensity, rtol=1e-6)
    assert batch.weight is None


def test_sample_weights_pass_through(exposures):
    weight = np.arange(12) / 4
    np.testing.assert_array_equal(to_batch(exposures(sample_weight=weight)).weight.numpy(), weight)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("label", ["conversion", "action"])
def test_a_censored_label_takes_its_row_out(exposures, weighted, label):
    values = np.ones(12, np.int8)
    values[[2, 5]] = CENSORED
    weight = {"sample_weight": np.full(12, 3.0)} if weighted else {}
    batch = to_batch(exposures(click=np.ones(12, np.int8), **{label: values}, **weight))
    expected = np.full(12, 3.0 if weighted else 1.0)
    expected[[2, 5]] = 0
    np.testing.assert_array_equal(batch.weight.numpy(), expected)
    assert getattr(batch, label).min() == 0  # never -1
    per_row = torch.zeros(12)
    per_row[[2, 5]] = 1e6
    assert mean_over_exposures(per_row, batch.weight).item() == 0


def test_without_labels_there_is_nothing_to_learn_from(exposures):
    batch = to_batch(exposures().without_labels())
    assert batch == Batch(batch.features)
    with pytest.raises(DataError, match=r"data\.label_missing a loss needs the labels click and conversion"):
        batch_labels(batch)
    labelled = to_batch(exposures())
    assert batch_labels(labelled) == (labelled.click, labelled.conversion)
    with pytest.raises(DataError):
        batch_labels(dataclasses.replace(labelled, conversion=None))


def test_the_action_is_given_as_logged_or_refused_with_the_fix(exposures):
    action = np.arange(12, dtype=np.int8) % 2
    batch = to_batch(exposures(action=action))
    assert batch_action(batch).tolist() == action.tolist()  # also on unclicked rows: losses multiply by the click
    with pytest.raises(DataError, match=r"data\.label_missing .*label action.*name the column in the schema"):
        batch_action(to_batch(exposures()))


@pytest.mark.parametrize("weighted", [False, True])
def test_where_windows_were_open_is_told_with_the_times(exposures, weighted):
    day, missing = 86_400_000_000, np.iinfo(np.int64).min
    click = np.array([1, 1, 1, 0], np.int8)
    given = exposures(
        rows=4,
        click=click,
        conversion=np.array([CENSORED, 1, 0, 0], np.int8),
        immature=np.array([1, 1, 0, 1], np.int8),
        time=np.array([0, 0, -9 * day, 0]),
        click_time=np.array([day, missing, -8 * day, missing]),
        conversion_time=np.array([missing, 2 * day, missing, missing]),
        observed_until=np.full(4, 3 * day),
        **({"sample_weight": np.array([2.0, 3.0, 4.0, 5.0])} if weighted else {}),
    )
    batch = to_batch(given)
    assert batch.conversion.tolist() == [0.0, 1.0, 0.0, 0.0]
    assert batch.delays.elapsed.tolist() == [2.0, 3.0, 11.0, 0.0]
    assert batch.delays.delay.tolist() == [0.0, 2.0, 0.0, 0.0]
    assert batch.delays.immature.tolist() == [1.0, 1.0, 0.0, 1.0]
    assert batch.weight.tolist() == ([0.0, 0.0, 4.0, 0.0] if weighted else [0.0, 0.0, 1.0, 0.0])
    assert batch.weight_of("cvr") is batch.weight
    if weighted:
        assert batch.weight_of("ctr").tolist() == batch.click_weight.tolist() == [2.0, 3.0, 4.0, 5.0]
    else:
        assert batch.click_weight is None
    taken = dataclasses.replace(given.labels, immature=np.array([2, 2, 0, 2], np.int8), conversion=0 * click)
    batch = to_batch(dataclasses.replace(given, labels=taken))
    assert batch.weight is None if not weighted else batch.weight.tolist() == [2.0, 3.0, 4.0, 5.0]
    assert batch.delays.immature.sum() == 0


def test_a_log_that_says_nothing_of_windows_has_no_times_in_its_batches(exposures):
    batch = to_batch(exposures(click_time=np.zeros(12, np.int64), observed_until=np.zeros(12, np.int64)))
    assert batch.delays is None
    assert batch.click_weight is batch.weight is None
