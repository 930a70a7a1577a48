"""The leaderboard's gains, letters, Table 1 and what is set apart."""

from __future__ import annotations

from dataclasses import replace

from report_facts import html_of, study_of

from postclick.report.facts import Cell, Study, Trial
from postclick.report.log_facts import DataTable, Delay, Funnel
from postclick.report.sections.data import data
from postclick.report.sections.delay import delay
from postclick.report.sections.leaderboard import leaderboard
from postclick.report.sections.settings import settings


def board_study() -> Study:
    study = study_of()
    open_ = replace(study.pairs[0], verdict="cannot tell", needed="about 1200 more conversions", gain=-0.0123, p=0.2)
    groups = {"cvr/auc@world": {"head": {"ESMM": "b", "CSTWA": "ab", "MMoE": "a"}}}
    table = DataTable(321, 45, 7, (Funnel("train", 16000, 1600, 160), Funnel("test", 2000, 200, 20)))
    return replace(study, pairs=(open_, *study.pairs[1:]), groups=groups, table=table)


def test_gain_and_what_would_tell_stand_beside_cannot_tell() -> None:
    part = leaderboard(board_study())
    assert part.board is not None
    cells = {label: row[0] for label, _, _, row in part.board.rows}
    assert cells["CSTWA"][2:] == ("cannot tell", "gain −1.23\u202f%; needs about 1200 more conversions")
    assert cells["ESMM"][2:] == ("baseline", "")
    row = next(row for row in part.groups[0].figures[0].table.rows if row[0] == "CSTWA")
    assert -0.0123 in row
    assert 0.2 in row


def test_letters_are_a_table_and_none_where_there_are_none() -> None:
    (figure,) = leaderboard(board_study()).first
    assert figure.table.rows == (("MMoE", "a"), ("CSTWA", "ab"), ("ESMM", "b"))
    assert leaderboard(study_of()).first == ()
    assert "Who cannot be told apart" in html_of(board_study())


def test_derived_heads_stand_apart_whatever_their_score() -> None:
    study = study_of()
    top = study.contestants[-1]
    cells = {**top.cells, "cvr/auc@world": Cell(0.99, derived=True)}
    study = replace(study, contestants=(*study.contestants[:-1], replace(top, cells=cells)))
    part = leaderboard(study)
    assert part.board is not None
    assert [row[0] for row in part.board.apart] == [top.label]
    assert top.label not in [row[0] for row in part.board.rows]
    assert "never called best" in html_of(study)
    assert leaderboard(study_of()).board.apart == ()  # type: ignore[union-attr]


def test_table_one_is_first_in_the_data_and_old_boards_have_none() -> None:
    (figure,) = data(board_study()).first
    assert figure.table.rows[0] == ("train", 321, 45, 7, 16000, 1600, 160, 0.1, 0.1, 0.01)
    html = html_of(board_study())
    assert html.index("Table 1: the data") < html.index('class="funnels"')
    assert data(study_of()).first == ()
    assert "Table 1" not in html_of(study_of())


def test_a_rate_of_nothing_is_not_zero() -> None:
    study = study_of()
    log = replace(study.log, funnels=(Funnel("train", 16000, 0, 0, open=0),))
    part = data(replace(study, log=log))
    assert part.tables[0].table.rows == (("train", 16000, 0, 0, 0.0, None, 0.0),)
    ((_, stages),) = part.funnels
    assert (stages[-1].share, stages[-1].width) == (None, 0.0)


def test_the_best_over_a_grid_is_what_its_metric_calls_best() -> None:
    trials = tuple(Trial("ESMM", {"a": 1, "b": b}, value) for b, value in ((1, 0.9), (2, 0.7)))
    trials += (Trial("ESMM", {"a": 2, "b": 1}, 0.8),)
    for metric, wanted in (("cvr/ne@click", 0.7), ("cvr/auc@click", 0.9), ("the validation loss", 0.7)):
        groups = settings(replace(study_of(), trials=trials, grid_metric=metric)).groups
        figure = next(one for group in groups for one in group.figures if one.title == "The grid over a")
        assert figure.table.rows[0] == ("ESMM", "1", wanted)


def test_a_split_that_took_part_in_training_is_not_called_untouched() -> None:
    assert "took no part in training" in html_of(study_of())
    html = html_of(study_of(split="valid"))
    assert "took no part in training" not in html
    assert "judged on valid rows" in html


def test_open_clicks_are_said_beside_the_conversions() -> None:
    study = study_of()
    log = replace(study.log, funnels=(Funnel("train", 16000, 1600, 160, open=400),))
    late = Delay((600.0, 7200.0, 259200.0), (0.1, 0.5, 1.0), 400)
    study = replace(study, log=replace(log, delay=late))
    text = " ".join(delay(study).text)
    assert "half came within 2.0 hours of the click and 90 % within 3.0 days" in text
    assert "400 of 1,600 in train" in text
    ((_, stages),) = data(study).funnels
    assert (stages[-1].name, stages[-1].of) == ("conversions so far", "of clicks; 400 clicks still open")
