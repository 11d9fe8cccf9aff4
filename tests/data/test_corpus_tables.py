"""Corpus, queries and qrels in tables, as MTEB and ViDoRe keep them."""

import datasets
import pytest

from colmrl.config import DataConfig
from colmrl.data import reading
from colmrl.data.media import open_image
from colmrl.data.reading import format_of, read_collection
from colmrl.data.records import relevant
from colmrl.errors import InputError

V2 = ("corpus-id", "query-id", "text")  # vidore/esg_reports_v2
V3 = ("corpus_id", "query_id", "markdown")  # vidore/vidore_v3_*
MTEB = ("id", "id", "text")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def beir(sample):
    return read_collection(str(sample / "test"), DataConfig())


def parts(collection, names):
    """The same data set as three tables; ids are numbers, as ViDoRe's are."""
    corpus_id, query_id, text = names
    asked, told = ("query-id", "corpus-id") if corpus_id == "id" else (query_id, corpus_id)
    number = {name: i for i, name in enumerate(collection.documents.ids)}
    corpus = [
        {corpus_id: number[d.id], text: d.text, "image": {"bytes": open(d.images[0], "rb").read(), "path": None}}  # noqa: PTH123, SIM115
        for d in collection.documents
    ]
    queries = [{query_id: i, "query": q.text, "language": "english"} for i, q in enumerate(collection.queries)]
    place = {name: i for i, name in enumerate(collection.queries.ids)}
    judged = collection.judged("test").items()
    qrels = [{asked: place[q], told: number[d], "score": grade} for q, grades in judged for d, grade in grades.items()]
    pictures = datasets.Dataset.from_list(corpus).cast_column("image", datasets.Image())
    return {
        "corpus": pictures,
        "queries": datasets.Dataset.from_list(queries),
        "qrels": datasets.Dataset.from_list(qrels),
    }


def written(tables, folder):
    for name, table in tables.items():
        (folder / name).mkdir(parents=True)
        table.to_parquet(folder / name / "test-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize("names", [V2, V3, MTEB])
def test_tables_of_corpus_queries_and_qrels_are_the_data_set_that_its_beir_folder_is(names, beir, tmp_path):
    folder = written(parts(beir, names), tmp_path / "d")
    found = read_collection(str(folder), DataConfig())
    assert format_of(folder) == "mteb"
    assert [d.text for d in found.documents] == [d.text for d in beir.documents]
    assert [q.text for q in found.queries] == [q.text for q in beir.queries]
    assert found.queries[0].meta == {"language": "english"}
    for ours, theirs in zip(found.documents, beir.documents, strict=True):
        assert open_image(ours.images[0]).tobytes() == open_image(theirs.images[0]).tobytes()
    right = {
        beir.queries.named(q).text: {beir.documents.position[d] for d in relevant(g)}
        for q, g in beir.judged("test").items()
    }
    assert right == {
        found.queries.named(q).text: {int(d) for d in relevant(g)} for q, g in found.judged("test").items()
    }


def test_what_is_wrong_in_the_tables_is_said_with_table_and_row(beir, tmp_path):
    tables = parts(beir, V3)
    twice = datasets.concatenate_datasets([tables["queries"], tables["queries"].select([0])])
    folder = written(tables | {"queries": twice}, tmp_path / "twice")
    with pytest.raises(InputError, match=r"queries/test: row \d+: query_id: '0' is the id of an earlier row"):
        read_collection(str(folder), DataConfig())
    wrong = datasets.Dataset.from_list([*tables["qrels"].to_list(), {"query_id": 0, "corpus_id": 999, "score": 1}])
    folder = written(tables | {"qrels": wrong}, tmp_path / "unknown")
    with pytest.raises(
        InputError, match=r"qrels/test: row \d+: corpus id: unknown id '999': add it to the table corpus"
    ):
        read_collection(str(folder), DataConfig())
    assert read_collection(str(folder), DataConfig(strict=False)).judged("test")
    nameless = tables["corpus"].rename_column("corpus_id", "page")
    with pytest.raises(InputError, match=r"corpus/test: row 0: corpus-id \| corpus_id \| id \| _id: missing"):
        read_collection(str(written(tables | {"corpus": nameless}, tmp_path / "nameless")), DataConfig())


def test_a_data_set_of_the_hub_with_three_configurations_is_read_so(beir, monkeypatch):
    tables = parts(beir, V2)
    monkeypatch.setattr(reading, "_keeps_beir_files", lambda name: False)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: [*tables, "documents_metadata"])
    monkeypatch.setattr(datasets, "load_dataset", lambda name, part: datasets.DatasetDict({"test": tables[part]}))
    reading._keeps_corpus_tables.cache_clear()
    found = read_collection("vidore/ours", DataConfig())
    assert len(found.documents) == len(beir.documents)
    assert open_image(found.documents[3].images[0]).size == open_image(beir.documents[3].images[0]).size
