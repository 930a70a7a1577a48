"""Reading a folder from strangers (TRUST B01, B02, B04)."""

from __future__ import annotations

import json
import os
import pickle
import zipfile

import pytest

from postclick import files
from postclick.bundle.reading import MAX_DEPTH, parse_json, read_contents
from postclick.errors import BundleError, InputMissingError, TrustError


@pytest.fixture
def bundle(tmp_path):
    with files.new_folder(tmp_path / "bundle", "bundle") as folder:
        files.write_json(folder / "model.json", {"format": 1})
        (folder / "vocabulary").mkdir()
        files.write_bytes(folder / "vocabulary" / "values.arrow", b"ARROW1" + bytes(range(100)))
    return tmp_path / "bundle"


def refused(path, code, kind=TrustError, exit_code=77):
    with pytest.raises(kind) as caught:
        read_contents(path)
    assert caught.value.code == code
    assert caught.value.exit_code == exit_code
    return caught.value


def test_reads_what_was_written(bundle):
    contents = read_contents(bundle)
    assert set(contents.files) == {"model.json", "vocabulary/values.arrow"}
    assert contents.json("model.json") == {"format": 1}
    assert contents.hash == files.read_manifest(bundle).hash


def test_a_run_stands_for_its_bundle(tmp_path, bundle):
    run = tmp_path / "run"
    run.mkdir()
    bundle.rename(run / "bundle")
    files.write_manifest(run, "run")
    assert read_contents(run).path == run / "bundle"


def test_a_needed_file_that_no_one_listed(bundle):
    with pytest.raises(TrustError, match=r"bundle\.malformed a bundle needs schema\.toml"):
        read_contents(bundle)["schema.toml"]


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "model.joblib", "model.unknown"])
def test_pickles_are_refused_by_name_or_by_first_bytes(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(pickle.dumps({"weights": [1.0] * 9}))
    error = refused(path, "bundle.unsafe_format")
    assert "can run code" in str(error)


def test_a_zip_and_a_folder_around_a_pickle_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr("data.pkl", b"x")
    refused(tmp_path / "archive", "bundle.unsafe_format")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.pth").write_bytes(b"anything")
    refused(folder, "bundle.unsafe_format")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_under_a_good_name_with_a_good_manifest(tmp_path, protocol):
    with files.new_folder(tmp_path / "bundle", "bundle") as folder:
        files.write_bytes(folder / "model.safetensors", pickle.dumps(list(range(50)), protocol))
    refused(tmp_path / "bundle", "bundle.unsafe_format")


def test_a_safetensors_header_that_looks_like_a_pickle_is_not_one(tmp_path):
    header = b'{"a":1}'.ljust(0x0280)
    with files.new_folder(tmp_path / "bundle", "bundle") as folder:
        files.write_bytes(folder / "model.safetensors", len(header).to_bytes(8, "little") + header)
    data = read_contents(tmp_path / "bundle")["model.safetensors"]
    assert data[:2] == b"\x80\x02"


def test_every_kind_of_tampering_is_listed_at_once(bundle):
    (bundle / "extra.txt").write_text("x")
    (bundle / "vocabulary" / "values.arrow").unlink()
    (bundle / "vocabulary" / "link").symlink_to("/etc/hostname")
    error = refused(bundle, "bundle.tampered")
    text = str(error)
    assert "not listed in the manifest | extra.txt" in text
    assert "listed in the manifest but missing | vocabulary/values.arrow" in text
    assert "a link or a special file | vocabulary/link" in text


@pytest.mark.parametrize("change", ["flip", "grow"])
def test_altered_bytes(bundle, change):
    path = bundle / "vocabulary" / "values.arrow"
    data = bytearray(path.read_bytes())
    if change == "flip":
        data[50] ^= 1
    else:
        data += b"\0"
    path.write_bytes(bytes(data))
    assert "vocabulary/values.arrow" in str(refused(bundle, "bundle.tampered"))


def test_a_listed_file_replaced_by_a_link_to_equal_bytes(bundle, tmp_path):
    path = bundle / "model.json"
    (tmp_path / "elsewhere").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    refused(bundle, "bundle.tampered")


def test_a_linked_folder_is_not_followed(bundle, tmp_path):
    (bundle / "vocabulary").rename(tmp_path / "elsewhere")
    (bundle / "vocabulary").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    refused(bundle, "bundle.tampered")


def test_a_pipe_is_not_opened(bundle):
    path = bundle / "model.json"
    path.unlink()
    os.mkfifo(path)
    refused(bundle, "bundle.tampered")


def rewrite_manifest(bundle, change):
    path = bundle / files.MANIFEST
    form = json.loads(path.read_text())
    change(form)
    path.write_text(json.dumps(form))


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a\\b", "./model.json"])
def test_paths_that_leave_the_bundle(bundle, name):
    rewrite_manifest(bundle, lambda form: form["files"].update({name: {"sha256": "0", "bytes": 1}}))
    assert "outside the bundle" in str(refused(bundle, "bundle.tampered"))


def test_a_size_that_would_fill_the_memory_is_compared_before_reading(bundle):
    rewrite_manifest(bundle, lambda form: form["files"]["model.json"].update({"bytes": 2**60}))
    assert "differs in length" in str(refused(bundle, "bundle.tampered"))


def test_the_hash_of_the_manifest_itself(bundle):
    rewrite_manifest(bundle, lambda form: form.update({"hash": "0" * 64}))
    refused(bundle, "bundle.tampered")


def test_a_newer_format_is_named(bundle):
    rewrite_manifest(bundle, lambda form: form.update({"format": 2}))
    error = refused(bundle, "bundle.version", BundleError, 78)
    assert "upgrade postclick" in str(error)


@pytest.mark.parametrize("text", ["[]", "{", '{"kind": "bundle", "format": 1, "files": [], "hash": ""}', "[" * 100_000])
def test_a_malformed_manifest(bundle, text):
    (bundle / files.MANIFEST).write_text(text)
    refused(bundle, "bundle.malformed")


def test_more_files_than_any_honest_bundle_has(bundle):
    many = {f"file{index}": {"sha256": "0", "bytes": 1} for index in range(2000)}
    rewrite_manifest(bundle, lambda form: form["files"].update(many))
    assert "at most" in str(refused(bundle, "bundle.malformed"))


def test_depth_of_json_is_bounded():
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, "x") is not None
    with pytest.raises(TrustError, match="deeper"):
        parse_json(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "x")


def test_the_wrong_kind_and_nothing_at_all(tmp_path):
    with files.new_folder(tmp_path / "log", "log") as folder:
        files.write_text(folder / "x", "x")
    assert "found a 'log' folder" in str(refused(tmp_path / "log", "input.wrong_kind", InputMissingError, 66))
    refused(tmp_path / "absent", "input.missing", InputMissingError, 66)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "input.wrong_kind", InputMissingError, 66)
