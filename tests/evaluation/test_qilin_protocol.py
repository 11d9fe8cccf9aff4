import pytest

from colmrl.data.qilin import read_qilin
from colmrl.data.qilin_sample import write_qilin_sample
from colmrl.errors import InputError
from colmrl.evaluation.metrics import mean, of_orders
from colmrl.evaluation.qilin_protocol import official_answers, official_metrics, official_part
from colmrl.reranking.candidates import ground_truth, shown


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    return write_qilin_sample(tmp_path_factory.mktemp("qilin") / "q", searches=8, notes=40, test_searches=9)


def test_a_case_by_hand():
    """q0: 12 answers, at ranks 2 and 3. q1: one answer, at rank 11. q2: judged, not ranked. q3: ranked only."""
    many = {f"r{n}" for n in range(12)}
    orders = {
        "q0": ["x0", "r0", "r1", *(f"x{n}" for n in range(1, 9))],
        "q1": [*(f"x{n}" for n in range(10)), "a"],
        "q3": ["x0"],
    }
    found = official_metrics(orders, {"q0": many, "q1": {"a"}, "q2": {"b"}}, (10, 100))
    assert found == pytest.approx(
        {
            "mrr_at_10": (1 / 2 + 0) / 2,
            "map_at_10": ((1 / 2 + 2 / 3) / 10 + 0) / 2,  # 10: the smaller of 12 answers and 10 ranks
            "recall_at_10": (2 / 12 + 0) / 2,
            "precision_at_10": (2 / 10 + 0) / 2,
            "mrr_at_100": (1 / 2 + 1 / 11) / 2,
            "map_at_100": ((1 / 2 + 2 / 3) / 12 + 1 / 11) / 2,
            "recall_at_100": (2 / 12 + 1) / 2,
            "precision_at_100": (2 / 100 + 1 / 100) / 2,
        }
    )
    trec = mean(of_orders(orders, {"q0": dict.fromkeys(many, 1), "q1": {"a": 1}, "q2": {"b": 1}}, ["map_at_10"]))
    assert trec["map_at_10"] == pytest.approx((1 / 2 + 2 / 3) / 12 / 3)  # all answers, all judged queries


def test_the_official_file_and_the_clicks_say_the_same_and_rows_are_the_first_thousand(generated, tmp_path):
    collection = read_qilin(generated)
    official = official_answers(collection, "test")
    (generated / "search.test.qrels.csv").rename(tmp_path / "away.csv")
    try:
        clicks = official_answers(collection, "test")
    finally:
        (tmp_path / "away.csv").rename(generated / "search.test.qrels.csv")
    assert official == {query: right for query, right in clicks.items() if right}
    lists = shown(collection, "test")
    assert official_part(lists).of == lists.of
    later = type(lists)("shown", "s", {"999": ("a",), "1000": ("b",)}, None, {"999": {}, "1000": {}})
    assert list(official_part(later).of) == ["999"]


def test_the_protocol_is_refused_where_it_does_not_belong(generated, sample):
    from colmrl.config import DataConfig
    from colmrl.data.reading import read_collection

    collection = read_qilin(generated)
    with pytest.raises(InputError, match="is not of Qilin's tables"):
        official_answers(read_collection(str(sample / "test"), DataConfig()), "test")
    with pytest.raises(InputError, match="is of split test, not 'train'"):
        official_answers(collection, "train")
    with pytest.raises(InputError, match="lists that were shown or found"):
        official_part(ground_truth(collection, "test", 3, 0))
    with pytest.raises(InputError, match="none of the first 1,000 rows"):
        official_part(shown(collection, "train"))
