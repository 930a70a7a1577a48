"""Write a bundle, and load one without trusting it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from postclick import files
from postclick.bundle.header import Header
from postclick.bundle.reading import Contents, read_contents
from postclick.bundle.serving import served_scores
from postclick.bundle.weights import load_weights, owned, write_weights
from postclick.calibration import Calibration
from postclick.data.arrays import Exposures
from postclick.data.encode import Encoder
from postclick.data.log import ExposureLog, to_arrow
from postclick.data.vocabulary import Vocabulary
from postclick.errors import BundleError, ConfigError, DataError, ExitCode, Finding, InputMissingError, TrustError
from postclick.models.base import ConversionModel
from postclick.models.catalog import build
from postclick.schema import Schema

__all__ = ["REFERENCE_ROWS", "Bundle", "write_bundle"]

REFERENCE_ROWS = 16
_VOCABULARY = "vocabulary/"


@dataclass(frozen=True)
class Bundle:
    """A trained system, ready to score.

    Parameters
    ----------
    path
        Where it was read from.
    hash
        Identity of its content.
    header
        System, arguments, numbers of the training log, constants, versions.
    schema
        Features and funnel.
    model
        The network, in evaluation mode.
    encoder
        Raw values to table rows.
    calibration
        Calibrators by head.
    vocabulary
        Identity of the vocabulary's files: a log with the same one and the same features has the same table rows.
    """

    path: Path
    hash: str
    header: Header
    schema: Schema
    model: ConversionModel
    encoder: Encoder
    calibration: Calibration
    vocabulary: str

    @classmethod
    def load(cls, path: str | Path) -> Bundle:
        """Load a BUNDLE, or the one of a RUN; every file is hashed before anything is parsed, and nothing is run.

        Raises
        ------
        TrustError
            ``bundle.unsafe_format``, ``bundle.tampered``, ``bundle.malformed`` (exit 77).
        BundleError
            ``bundle.version``: a newer format, an unknown system, or no encoder in it (exit 78).
        InputMissingError
            Nothing there, or a folder of another kind (exit 66).
        """
        contents = read_contents(path)
        header = Header.from_dict(contents.json("model.json"))
        schema = _schema(contents)
        model = _model(header, schema, contents["model.safetensors"])
        encoder = _encoder(contents, schema, model.spec.table_rows)
        calibration = _calibration(contents, schema)
        vocabulary = _vocabulary_identity(contents.listed)
        return cls(contents.path, contents.hash, header, schema, model, encoder, calibration, vocabulary)

    def require_fit(self, log: ExposureLog) -> None:
        """Refuse a log whose table rows mean something else than this bundle's.

        Raises
        ------
        DataError
            ``data.schema_mismatch`` or ``data.vocabulary_mismatch``, with the command that makes a log that fits.
        """
        fix = f"prepare the raw data again with --vocabulary {self.path.name}"
        if (log.schema.features, log.schema.population) != (self.schema.features, self.schema.population):
            theirs, ours = ({feature.name for feature in schema.features} for schema in (log.schema, self.schema))
            odd = sorted(theirs ^ ours)
            what = "the log's features are not the bundle's" + (f" ({', '.join(odd[:5])})" if odd else "")
            raise DataError(Finding("data.schema_mismatch", what, str(log.path), fix=fix))
        if _vocabulary_identity(log.manifest.files) != self.vocabulary:
            what = "the log was encoded with another vocabulary than the bundle's"
            raise DataError(Finding("data.vocabulary_mismatch", what, str(log.path), fix=fix))


def _vocabulary_identity(listed: Mapping[str, tuple[str, int]]) -> str:
    return files.identity("vocabulary", {name: item for name, item in listed.items() if name.startswith(_VOCABULARY)})


def _schema(contents: Contents) -> Schema:
    try:
        return Schema.from_dict(tomllib.loads(contents["schema.toml"].decode("utf-8")))
    except ValueError as error:
        raise TrustError(Finding("bundle.malformed", f"not TOML ({error})", "schema.toml")) from error


def _encoder(contents: Contents, schema: Schema, table_rows: int) -> Encoder:
    held = {
        name.removeprefix(_VOCABULARY): data for name, data in contents.files.items() if name.startswith(_VOCABULARY)
    }
    if not held:
        what = "the bundle holds no encoder (vocabulary/), which this postclick needs to score raw rows"
        finding = Finding("bundle.version", what, str(contents.path), fix="write it again with this version")
        raise BundleError(finding, exit_code=ExitCode.CONFIG)
    try:
        encoder = Encoder.load(contents.path / _VOCABULARY, schema, held)
        _check_rows(encoder.vocabulary, table_rows)
    except (KeyError, TypeError, ValueError, AttributeError, DataError, InputMissingError) as error:
        raise TrustError(Finding("bundle.malformed", f"not a vocabulary ({error})", _VOCABULARY)) from error
    return encoder


def _check_rows(vocabulary: Vocabulary, table_rows: int) -> None:
    """Refuse rows that the model's table does not have: they would be read from outside it."""
    if vocabulary.table_rows != table_rows:
        raise ValueError(f"{vocabulary.table_rows} table rows, the model has {table_rows}")
    for entry in vocabulary.fields:
        ends = [entry.rows.min(initial=0), entry.rows.max(initial=0)]
        if entry.buckets is not None and entry.first_bucket is not None:
            ends += [entry.first_bucket, entry.first_bucket + entry.buckets - 1]
        if min(ends) < 0 or max(ends) >= table_rows or entry.rows.dtype != np.int32:
            raise ValueError(f"rows of {entry.name!r} lie outside the table")


def _calibration(contents: Contents, schema: Schema) -> Calibration:
    calibration = Calibration.from_dict(contents.json("calibration.json"))
    unknown = sorted(set(calibration.fields) - {feature.name for feature in schema.sparse})
    if unknown:
        what = f"calibrators read fields that the schema lacks: {', '.join(unknown)}"
        raise TrustError(Finding("bundle.malformed", what, "calibration.json"))
    return calibration


def _model(header: Header, schema: Schema, weights: bytes) -> ConversionModel:
    """Build the system without memory of its own, so that false sizes fill none, and give it the file's tensors."""
    try:
        with torch.device("meta"):
            model = build(header.system, header.log_spec(schema), header.arguments)
    except ConfigError as error:
        what = f"this postclick cannot build the bundle's system: {error.findings[0].what}"
        finding = Finding("bundle.version", what, "model.json", fix="load it with the version that wrote it")
        raise BundleError(finding, exit_code=ExitCode.CONFIG) from error
    load_weights(model, weights)
    if not owned(model) or dict(model.heads) != dict(header.heads):
        raise TrustError(Finding("bundle.malformed", "the header does not describe the system", "model.json"))
    return model.eval().requires_grad_(False)


def write_bundle(
    out: Path,
    model: ConversionModel,
    header: Header,
    log: ExposureLog,
    calibration: Calibration,
    *,
    reference: Exposures,
    force: bool = False,
) -> str:
    """Write a BUNDLE atomically and return its hash.

    Parameters
    ----------
    out
        The folder that shall appear.
    model
        Trained, with its unknown rows filled.
    header, calibration
        What goes beside the weights.
    log
        Whose schema and vocabulary the bundle takes.
    reference
        Encoded rows; the first 16 are stored with their scores, for `verify` and other runtimes to recompute.
    force
        Replace an existing bundle.

    Raises
    ------
    StorageError
        When `out` exists and `force` is off (exit 73), or the disk fails.
    """
    few = reference.without_labels().take(np.arange(min(REFERENCE_ROWS, len(reference))))
    with files.new_folder(out, "bundle", force=force) as folder:
        write_weights(folder / "model.safetensors", model)
        files.write_json(folder / "model.json", header.to_dict())
        files.write_text(folder / "schema.toml", log.schema.to_toml())
        files.write_json(folder / "calibration.json", calibration.to_dict())
        _copy_folder(log.path / "vocabulary", folder / "vocabulary")
        _write_reference(folder / "reference.arrow", model, header, calibration, few)
    return files.read_manifest(out, "bundle").hash


def _copy_folder(source: Path, target: Path) -> None:
    target.mkdir()
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
        else:
            files.write_bytes(place, path.read_bytes())


def _write_reference(
    path: Path, model: ConversionModel, header: Header, calibration: Calibration, rows: Exposures
) -> None:
    import pyarrow as pa

    scores = served_scores(model, rows, header.constants, calibration, batch_size=REFERENCE_ROWS)
    batch = to_arrow(rows, model.spec.schema)
    for head in scores.heads:
        batch = batch.append_column(f"odds:{head}", pa.array(scores.odds[head]))
    with files.create(path) as handle, pa.ipc.new_file(handle, batch.schema) as writer:
        writer.write_batch(batch)
