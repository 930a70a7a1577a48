"""Raw Ali-CCP: ``sample_skeleton_{train,test}.csv`` joined with ``common_features_{train,test}.csv``.

The skeleton holds an exposure a line (id, click, buy, key of the common features, number, features), the common file
what many exposures of one user share. The common file of a role is turned to arrays once (`prepare` does that in pieces
and maps them into memory, other readers hold them); skeleton pieces of about 32 MB are then parsed and joined
column-wise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from postclick.data.sources.ali_ccp_common import MISSING, Common, Ragged, common_parts, read_common, select
from postclick.data.sources.ali_ccp_tables import load_tables, write_part, write_tables
from postclick.data.sources.ali_ccp_text import Features, Lines, line_chunks
from postclick.data.sources.base import Piece, SourceBatch, SourceProtocol, SplitRole, ValueCounts
from postclick.data.sources.inputs import Inputs, only_paths
from postclick.errors import ConfigError, DataError, Finding, InputMissingError, nearest
from postclick.schema import Columns, Schema, SequenceFeature, SparseFeature
from postclick.schema.inference import ALI_CCP_SIDES

__all__ = ["AITM_FIELDS", "COMMON", "AliCcpSource", "ali_ccp_schema"]

AITM_FIELDS = (
    *("101", "121", "122", "124", "125", "126", "127", "128", "129"),
    *("205", "206", "207", "216", "508", "509", "702", "853", "301"),
)
"""The 18 single-valued columns of AITM (Xi et al., KDD 2021), in its order."""
_FULL_SPARSE = ("101", "121", "122", "124", "125", "126", "127", "128", "129", "205", "206", "207", "216", "301")
_FULL_SEQUENCES = ("109_14", "110_14", "127_14", "150_14", "210", "508", "509", "702", "853")
COMMON = "common features"
"""Name in the value ledger: keys of the common file that occurred twice, exposures whose key is not in it."""
_BATCH_ROWS = 65_536
_PIECE_BYTES = 32 << 20
_COUNT_BYTES = 1 << 20
_NEWLINE = 10
_NOTES = (
    "user fields come from the common file; a field that a row holds twice keeps its last value, the row's own before "
    "the common one's",
)


def ali_ccp_schema(fields: str = "aitm") -> Schema:
    """Return the schema of the 18-column set (``aitm``) or of all fields (``full``).

    ``full`` holds the multi-valued fields as weighted sequences of at most 50 values, mean-pooled: the weights of the
    behaviour fields (logarithms of counts) then say what share a value has, and long histories do not grow the input.
    The weights of field ``109_14`` are the column ``109_14:weight``.

    Raises
    ------
    ConfigError
        ``config.value``: another set.
    """
    columns = Columns(exposure_id="exposure_id", user_id="101", item_id="205")
    if fields == "aitm":
        return Schema(tuple(SparseFeature(name, ALI_CCP_SIDES[name]) for name in AITM_FIELDS), columns)
    if fields != "full":
        what = f"expected 'aitm' or 'full', got {fields!r}"
        raise ConfigError(Finding("config.value", what, "fields"))
    single = tuple(SparseFeature(name, ALI_CCP_SIDES[name]) for name in _FULL_SPARSE)
    lists = tuple(
        SequenceFeature(name, ALI_CCP_SIDES[name], weights=f"{name}:weight", pooling="mean", max_length=50)
        for name in _FULL_SEQUENCES
    )
    return Schema((*single, *lists), columns)


@dataclass(frozen=True)
class _Pair:
    """The two files of one role."""

    role: SplitRole
    skeleton: Path
    common: Path


@dataclass(frozen=True)
class AliCcpSource:
    """Exposures of raw Ali-CCP files.

    Parameters
    ----------
    protocol, schema
        As `Source`; the schema's features are names of Ali-CCP fields, sparse or sequence.
    pairs
        The files by role.
    tables
        Path of a common file -> folder of its tables; a file that is not named is read into memory.
    """

    protocol: SourceProtocol
    schema: Schema
    pairs: tuple[_Pair, ...]
    tables: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def open(cls, inputs: Inputs, *, schema: Schema | None = None, fields: str = "aitm") -> AliCcpSource:
        """Find the files of each role: in a folder, or from the path of a skeleton file.

        Raises
        ------
        InputMissingError
            ``input.missing``: all files that are not there; ``data.empty``.
        DataError
            ``data.schema_mismatch``: a schema that names a column the raw files cannot give.
        """
        schema = schema or ali_ccp_schema(fields)
        problems: list[Finding] = []
        pairs = [pair for role, path in only_paths(inputs, "ali-ccp") for pair in _pairs(path, role, problems)]
        if problems:
            raise InputMissingError(*problems)
        if not any(pair.skeleton.stat().st_size for pair in pairs):
            raise InputMissingError(Finding("data.empty", "no row at all", pairs[0].skeleton.name))
        _check_names(schema)
        return cls(SourceProtocol("ali-ccp", provider_split=True, notes=_NOTES), schema, tuple(pairs))

    def pieces(self) -> list[Piece]:
        """Byte ranges of the skeletons of about 32 MB, cut at line ends; their first rows are counted here."""
        return [
            piece
            for pair in self.pairs
            for piece in _pieces(pair.skeleton, pair.role, str(pair.common), also=(str(pair.common),))
        ]

    def side_pieces(self) -> list[Piece]:
        """Byte ranges of the common files."""
        files = {pair.common: pair.role for pair in self.pairs}
        return [piece for path, role in files.items() for piece in _pieces(path, role, "")]

    def stage_side(self, piece: Piece, target: Path) -> None:
        """Write a byte range of a common file as columns."""
        assert piece.path is not None
        _, start, end, row = piece.payload
        write_part(target, common_parts(Path(piece.path), *_wanted(self.schema), start, end, row))

    def with_sides(self, parts: Mapping[str, list[Path]], folder: Path) -> AliCcpSource:
        """Put the tables of each common file together."""
        tables: dict[str, Path] = {}
        single, lists = _wanted(self.schema)
        for path in dict.fromkeys(str(pair.common) for pair in self.pairs):
            tables[path] = folder / str(len(tables))
            tables[path].mkdir()
            write_tables(parts.get(path, []), tables[path], len(single), len(lists))
        return replace(self, tables=tables)

    def read(self, piece: Piece) -> Iterator[SourceBatch]:
        """Yield the piece's exposures; user fields are null where the common file lacks the key, and counted."""
        assert piece.path is not None
        common_path, start, end, row = piece.payload
        table = self.tables.get(common_path)
        common = _common(Path(common_path), self.schema) if table is None else load_tables(table)
        values = {COMMON: ValueCounts(read=common.replaced_keys, replaced=common.replaced_keys)}
        pending = values if piece.index == 0 and common.replaced_keys else {}
        for data in line_chunks(Path(piece.path), start, end):
            lines = Lines(data, 5, piece.label, row)
            table, counts = _join(lines, common, self.schema)
            counts = _add(pending, counts)
            for offset in range(0, len(lines), _BATCH_ROWS):
                yield SourceBatch(table.slice(offset, _BATCH_ROWS), piece.label, row + offset, counts)
                counts = {}
            pending = {}
            row += len(lines)


def _pairs(path: Path, role: SplitRole | None, problems: list[Finding]) -> list[_Pair]:
    """Return the pairs of a folder (all, or that of `role`), or the pair of a skeleton file."""
    if path.is_dir():
        found = _skeletons(path, role)
        if not found:
            near = nearest("sample_skeleton_train.csv", [item.name for item in path.iterdir()])
            what = f"the folder holds no sample_skeleton_{role or 'train'}.csv"
            fix = f"is it {near!r}?" if near else "check the path"
            problems.append(Finding("input.missing", what, str(path), fix=fix))
    else:
        guess: SplitRole = "test" if "test" in path.name else "train"
        found = {role or guess: path}
        if "skeleton" not in path.name:
            what = "expected a sample_skeleton file or the folder that holds it"
            problems.append(Finding("input.wrong_kind", what, str(path)))
            return []
    pairs = []
    for name, skeleton in found.items():
        common = skeleton.with_name(skeleton.name.replace("sample_skeleton", "common_features"))
        if common.is_file() and common != skeleton:
            pairs.append(_Pair(name, skeleton, common))
        else:
            what = f"{skeleton.name} needs {common.name} beside it"
            problems.append(Finding("input.missing", what, str(skeleton.parent), fix="put both files into one folder"))
    return pairs


def _skeletons(path: Path, role: SplitRole | None) -> dict[SplitRole, Path]:
    """Return the skeletons of a folder; of one given for a role that role's, or its only one."""
    roles: tuple[SplitRole, ...] = ("train", "test")
    files = {name: path / f"sample_skeleton_{name}.csv" for name in roles}
    found: dict[SplitRole, Path] = {name: file for name, file in files.items() if file.is_file()}
    if role is None:
        return found
    if role in found:
        return {role: found[role]}
    return {role: next(iter(found.values()))} if len(found) == 1 else {}


def _check_names(schema: Schema) -> None:
    """Refuse features that are no fields of Ali-CCP, and roles that the raw files do not have."""
    fields = set(ALI_CCP_SIDES)
    singles = {feature.name for feature in schema.sparse}
    lists = {feature.name for feature in schema.sequences}
    weights = {feature.weights for feature in schema.sequences if feature.weights}
    funnel = {schema.columns.click, schema.columns.conversion, schema.columns.exposure_id}
    problems = []
    for name in schema.raw_columns():
        if name not in (singles | lists) & fields and name not in funnel | weights:
            near = nearest(name, fields)
            fix = f"did you mean {near!r}?" if near else f"fields: {', '.join(sorted(fields))}"
            what = f"raw Ali-CCP has no column {name!r} of this kind"
            problems.append(Finding("data.schema_mismatch", what, "schema", fix=fix))
    if problems:
        raise DataError(*problems)


def _pieces(path: Path, role: SplitRole, joined: str, also: tuple[str, ...] = ()) -> Iterator[Piece]:
    row = 0
    for index, (start, end, rows) in enumerate(_ranges(path)):
        yield Piece(path.name, str(path), role, index, (joined, start, end, row), also)
        row += rows


def _ranges(path: Path) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, lines) of pieces of whole lines."""
    start = position = rows = 0
    buffer = bytearray(min(_PIECE_BYTES, _COUNT_BYTES))
    with path.open("rb", buffering=0) as handle:
        while size := handle.readinto(buffer):
            data = buffer if size == len(buffer) else buffer[:size]
            rows += data.count(b"\n")
            position += size
            cut = data.rfind(b"\n") + 1
            if cut and position - start >= _PIECE_BYTES:
                yield start, position - size + cut, rows
                start, rows = position - size + cut, 0
    if position > start:
        yield start, position, rows + (data[-1] != _NEWLINE)


def _wanted(schema: Schema) -> tuple[tuple[str, ...], tuple[tuple[str, int], ...]]:
    """Return the names of the single-valued fields, and names and maximal lengths of the sequences."""
    lists = tuple((feature.name, feature.max_length) for feature in schema.sequences)
    return tuple(feature.name for feature in schema.sparse), lists


def _common(path: Path, schema: Schema) -> Common:
    stat = path.stat()
    return _cached_common(path, stat.st_size, stat.st_mtime_ns, *_wanted(schema))


# one: the full train and test tables do not fit beside each other in a small machine, and roles are read in turn
@lru_cache(maxsize=1)
def _cached_common(
    path: Path, _size: int, _changed: int, single: tuple[str, ...], lists: tuple[tuple[str, int], ...]
) -> Common:
    return read_common(path, single, lists)


def _join(lines: Lines, common: Common, schema: Schema) -> tuple[pa.RecordBatch, dict[str, ValueCounts]]:
    """Parse a chunk of skeleton lines and join the common features by key."""
    shared = common.find(*lines.digests(3))
    single = [feature.name for feature in schema.sparse]
    names = [*single, *(feature.name for feature in schema.sequences)]
    features = lines.features(names, weights=bool(schema.sequences))
    counts: dict[str, ValueCounts] = {}
    lost = int((shared < 0).sum())
    if lost:
        counts[COMMON] = ValueCounts(read=lost, rejected=lost)
    columns: dict[str, pa.Array] = {
        schema.columns.click: pa.array(lines.integers(1)),
        schema.columns.conversion: pa.array(lines.integers(2)),
    }
    if schema.columns.exposure_id:
        columns[schema.columns.exposure_id] = pa.array(lines.integers(0))
    values, replaced = _single(features, len(lines), common, shared)
    for place, name in enumerate(single):
        columns[name] = pa.array(values[:, place], mask=values[:, place] == MISSING)
        if replaced[place]:
            counts[name] = ValueCounts(read=int(replaced[place]), replaced=int(replaced[place]))
    for place, feature in enumerate(schema.sequences):
        values, weights, lost = _sequence(features, len(single) + place, common, shared, place)
        columns[feature.name] = values
        if feature.weights:
            columns[feature.weights] = weights
        if lost:
            counts[feature.name] = ValueCounts(read=lost, truncated=lost)
    order = schema.raw_columns()
    return pa.RecordBatch.from_arrays([columns[name] for name in order], names=list(order)), counts


def _single(
    features: Features, rows: int, common: Common, shared: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return [R, F] of the row's own value, else the common one; and how many values of each field were replaced."""
    own, earlier = select(features, rows, common.single.shape[1])
    theirs, replaced = common.take(shared)
    absent = own == MISSING
    replaced = replaced + (~absent & (theirs != MISSING)).sum(axis=0)
    if earlier is not None:
        replaced = replaced + earlier.sum(axis=0)
    own[absent] = theirs[absent]
    return np.asfortranarray(own), replaced


def _sequence(
    features: Features, field: int, common: Common, shared: NDArray[np.int64], place: int
) -> tuple[pa.Array, pa.Array, int]:
    """The common values and then the row's own, as lists; and how many the common table had cut off."""
    theirs = common.lists[place].take(shared)
    chosen = np.flatnonzero(features.field == field)
    assert features.weight is not None
    mine = Ragged.build(features.line[chosen], features.value[chosen], features.weight[chosen], len(shared))
    both = theirs.join(mine)
    offsets = pa.array(both.offsets)
    values = pa.LargeListArray.from_arrays(offsets, pa.array(both.values.astype(np.int64, copy=False)))
    weights = pa.LargeListArray.from_arrays(offsets, pa.array(both.weights.astype(np.float64)))
    return values, weights, theirs.cut_total


def _add(left: Mapping[str, ValueCounts], right: Mapping[str, ValueCounts]) -> dict[str, ValueCounts]:
    total = dict(left)
    for name, count in right.items():
        total[name] = total[name] + count if name in total else count
    return total
