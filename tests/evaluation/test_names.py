import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.data.scores import HEADS
from postclick.errors import ConfigError
from postclick.evaluation.names import METRICS, POPULATIONS, MetricName, format_metric, parse_metric

PLAIN = [name for name in METRICS if name not in ("recall", "f1", "lift", "ndcg", "value", "field_rce")]
NO_LISTS = ["ndcg", "ndcg[top=0.1]", "ndcg[k=0]", "recall[k=x]", "recall[k=5,empty=none]", "ndcg[empty=zero]"]


@given(st.sampled_from(HEADS), st.sampled_from(PLAIN), st.sampled_from(POPULATIONS), st.text(max_size=9))
def test_names_survive_the_trip_to_text(head, metric, population, part):
    name = MetricName(head, metric, population, slice=part)
    assert MetricName.parse(str(name)) == name


def test_a_name_with_everything():
    name = MetricName.parse("ctcvr/recall[top=0.010]@exposure|campaign=a|b@c")
    assert name == MetricName("ctcvr", "recall", "exposure", "top=0.01", "campaign=a|b@c")
    assert str(name) == "ctcvr/recall[top=0.01]@exposure|campaign=a|b@c"
    assert MetricName.parse("ctcvr/auc[score=raw]@exposure").variant == "score=raw"
    assert MetricName.parse("cvr/auc@click|cold-item").slice == "cold-item"


def test_unknown_parts_are_reported_together_with_the_likely_spelling():
    with pytest.raises(ConfigError) as caught:
        MetricName.parse("cvt/logless@clik")
    text = str(caught.value)
    assert [finding.code for finding in caught.value.findings] == ["config.metric_name"] * 3
    assert "there is no 'logless' | cvt/logless@clik | did you mean 'logloss'?" in text
    assert "did you mean 'click'?" in text
    assert "did you mean" in text.splitlines()[0]


@pytest.mark.parametrize("text", ["cvr auc", "cvr/auc", "auc@click", "", "cvr/auc@click|"])
def test_what_is_not_a_name(text):
    with pytest.raises(ConfigError, match="write HEAD/METRIC@POPULATION, for instance cvr/auc@click"):
        MetricName.parse(text)


@pytest.mark.parametrize(
    "text", ["recall", "recall[top=2]", "f1[top=x]", "lift[k=5]", "lift[top=0]", "auc[top=0.1]", *NO_LISTS]
)
def test_wrong_variants(text):
    with pytest.raises(ConfigError, match=r"config\.metric_name"):
        parse_metric(text)


@pytest.mark.parametrize("text", NO_LISTS)
def test_lists_of_a_user_need_a_number_of_rows(text):
    with pytest.raises(ConfigError, match=r"needs a number of rows .* write (ndcg|recall)\[k=5\]"):
        parse_metric(text)


def test_lists_of_a_user_and_what_an_empty_one_counts():
    for metric in ("ndcg", "recall"):
        assert parse_metric(f"{metric}[k=05]") == (metric, "k=5")
        assert parse_metric(f"{metric}[k=50,empty=skip]") == (metric, "k=50")
        assert MetricName.parse(f"cvr/{metric}[k=5,empty=zero]@random|new-pair").variant == "k=5,empty=zero"


def test_metric_and_variant():
    assert parse_metric("auc") == ("auc", "")
    assert format_metric(*parse_metric("lift[top=.05]")) == "lift[top=0.05]"


def test_a_metric_by_column_names_it_and_a_value_its_share():
    name = MetricName.parse("cvr/field_rce[by=campaign]@click")
    assert (name.metric, name.variant) == ("field_rce", "by=campaign")
    assert str(name) == "cvr/field_rce[by=campaign]@click"
    assert MetricName.parse("ctcvr/value[top=0.10]@exposure").variant == "top=0.1"
    for wrong in ("field_rce", "field_rce[by=]", "field_rce[top=0.1]", "value", "value[k=5]", "value[top=2]"):
        with pytest.raises(ConfigError, match=wrong.partition("[")[0]):
            parse_metric(wrong)
