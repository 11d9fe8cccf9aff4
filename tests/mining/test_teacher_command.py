"""mine.py --teacher, as typed, with a tiny pointwise reranker that reads texts."""

import json

import numpy as np
import pytest
from made import write_data, write_store
from typer.testing import CliRunner

from colmrl.cli.mine import mine_app
from colmrl.config import TeacherConfig
from colmrl.configure import load_config
from colmrl.data.reading import read_collection
from colmrl.errors import InputError
from colmrl.mining.teacher import taught_by
from colmrl.reranking.pointwise import PointwiseModel
from colmrl.reranking.reranker import open_reranker


def test_a_reranker_filters_and_its_scores_are_in_the_triples(tiny, tmp_path):
    rng = np.random.default_rng(0)
    data = write_data(tmp_path / "data", 4, [{"text": f"document {n}"} for n in range(12)], {q: [q] for q in range(4)})
    store = write_store(tmp_path / "store", data, rng.normal(size=(4, 5)), rng.normal(size=(12, 5)))
    model, out = tmp_path / "run/checkpoint", tmp_path / "t.jsonl"
    settings = ["task=pointwise", f"model.backbone={tiny('qwen3')}", "model.document_fields=[text]", "seed=3"]
    untrained = PointwiseModel.create(load_config(None, settings))
    untrained.classifier.bias.data -= 10  # scores near 1 would all be within the margin
    untrained.save(model)
    flags = ["--store", store, "--k", "12", "--teacher", model, "--out", out, "mine.negatives=12", "mine.filters=[]"]
    done = CliRunner().invoke(mine_app, list(map(str, flags)))
    assert done.exit_code == 0 and "teacher relative_margin 0.05" in done.stdout, done.output
    collection, reranker = read_collection(str(data), load_config(None).data), open_reranker(model)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert any(row["neg_ids"] for row in rows)
    for row in rows:
        scores = reranker.score(collection.queries.named(row["query_id"]), collection.documents)
        of = dict(zip(collection.documents.ids, map(float, scores), strict=True))
        assert row["pos_score"] == pytest.approx(of[row["pos_id"]], abs=1e-6)
        assert row["neg_scores"] == pytest.approx([of[name] for name in row["neg_ids"]], abs=1e-6)
        passing = {name for name, score in of.items() if score <= 0.95 * of[row["pos_id"]] and name != row["pos_id"]}
        assert set(row["neg_ids"]) == passing


def test_what_the_flag_is_short_for(store):
    (*_, last) = taught_by(load_config(None), str(store)).mine.filters
    assert last.teacher == TeacherConfig(store=str(store), relative_margin=0.05)
    (*_, last) = taught_by(load_config(None), "run/checkpoint").mine.filters
    assert last.teacher == TeacherConfig(reranker="run/checkpoint", relative_margin=0.05)
    with pytest.raises(InputError, match="has a teacher already"):
        taught_by(load_config(None, ["mine.filters=[{teacher: {scores: x}}]"]), "run/checkpoint")
