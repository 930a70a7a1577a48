"""The work folder of a preparation: who may use it, what stays in it."""

from __future__ import annotations

import pytest

from postclick import files
from postclick.data.partial import NEVER, Marker, open_partial, partial_folder
from postclick.errors import DataError, Finding, LockedError, StorageError


def work(partial):
    """Leave a finished piece."""
    Marker(partial.staged / "piece-00000.json", "abc").write({"rows": 1})


def interrupt(out, error, resume=False):
    def broken():
        with open_partial(out, resume=resume) as partial:
            work(partial)
            raise error

    with pytest.raises(type(error)):
        broken()


def fault(code):
    return DataError(Finding(code, "what"))


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (KeyboardInterrupt(), True),
        (StorageError(Finding("io.no_space", "full")), True),
        (ValueError("a bug"), True),
        (fault("data.corrupt_file"), True),
        (fault("data.changed_underfoot"), True),
        (fault("data.label_missing"), False),
    ],
)
def test_it_stays_where_going_on_makes_sense(tmp_path, error, stays):
    out = tmp_path / "log"
    interrupt(out, error)
    assert partial_folder(out).is_dir() is stays
    with open_partial(out, resume=True) as partial:
        assert partial.resumed is stays
        assert (Marker(partial.staged / "piece-00000.json", "abc").read() is not None) is stays
    assert not list(tmp_path.iterdir())


def test_nothing_done_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), open_partial(tmp_path / "log", resume=False):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_without_resume_it_is_emptied(tmp_path):
    out = tmp_path / "log"
    interrupt(out, KeyboardInterrupt())
    with open_partial(out, resume=False) as partial:
        assert not partial.resumed
        assert not list(partial.staged.glob("*.json"))


def test_one_at_a_time(tmp_path):
    out = tmp_path / "log"
    with open_partial(out, resume=False):
        with pytest.raises(LockedError) as caught, open_partial(out, resume=True):
            pass
        assert (caught.value.code, caught.value.exit_code) == ("lock.held", 75)
    with open_partial(out, resume=False):
        pass


def test_a_strangers_folder_is_not_touched(tmp_path):
    folder = partial_folder(tmp_path / "log")
    folder.mkdir()
    (folder / "mine").write_text("keep")
    with pytest.raises(StorageError, match=r"io\.exists"), open_partial(tmp_path / "log", resume=False):
        pass
    assert (folder / "mine").read_text() == "keep"


def test_half_written_files_and_folders_of_a_killed_run_are_swept(tmp_path):
    out = tmp_path / "log"
    interrupt(out, KeyboardInterrupt())
    half = partial_folder(out) / "staged" / ".staged-00001-000.arrow.123.tmp"
    half.write_text("x")
    published = tmp_path / ".log.abcdefgh.partial"
    published.mkdir()
    other = tmp_path / ".log.2024.partial"  # of the log `log.2024`, which somebody prepares
    other.mkdir()
    (other / ".lock").touch()
    with open_partial(out, resume=True):
        assert not half.exists()
        assert not published.exists()
        assert other.exists()


def test_a_marker_is_found_by_its_fingerprint_alone(tmp_path):
    path = tmp_path / "m.json"
    body = {"b": 1, "a": [1, 2]}
    Marker(path, "one").write(body)
    assert Marker(path, "one").read() == body
    assert list(Marker(path, "one").read()) == ["b", "a"]
    assert Marker(path, "two").read() is None
    Marker(path, NEVER).write(body)
    assert Marker(path, NEVER).read() is None
    path.write_text("{")
    assert Marker(path, "one").read() is None
    Marker(path, "one").clear()
    assert not path.exists()


@pytest.mark.parametrize("links", [True, False])
def test_publishing_keeps_the_work_where_links_are(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr("pathlib.Path.hardlink_to", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    out = tmp_path / "log"
    with open_partial(out, resume=False) as partial:
        (partial.log / "train" / "part.arrow").write_text("rows")
        with files.new_folder(out, "log") as folder:
            partial.publish(folder)
        assert (partial.log / "train" / "part.arrow").exists() is links
    assert (out / "train" / "part.arrow").read_text() == "rows"
