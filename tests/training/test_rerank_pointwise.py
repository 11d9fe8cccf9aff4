"""Training a pointwise reranker: negatives, batches, losses, what is learnt and kept, and going on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine import lines
from safetensors.torch import load_file

from colmrl.configure import load_config, save_config
from colmrl.data.mixture import Mixture
from colmrl.data.reading import read_collection, read_training
from colmrl.data.records import Document, Examples, Query, Records, Triple
from colmrl.errors import InputError
from colmrl.losses.reranking import binary_cross_entropy
from colmrl.reranking.reranker import open_reranker
from colmrl.training import rerank_pointwise
from colmrl.training.rerank_pointwise import PointwiseData, Question, candidates
from colmrl.training.run import train


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """Words asked for and found: 24 queries, each answered by one of 24 documents."""
    folder = tmp_path_factory.mktemp("texts") / "data"
    (folder / "qrels").mkdir(parents=True)
    colours, forms = ["red", "blue", "green", "black"], ["circle", "star", "ring", "cross", "square", "triangle"]
    pairs = [(colour, form) for colour in colours for form in forms]
    rows = [{"_id": f"d{i}", "text": f"a {colour} {form}"} for i, (colour, form) in enumerate(pairs)]
    asked = [{"_id": f"q{i}", "text": f"{colour} {form}"} for i, (colour, form) in enumerate(pairs)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    lines = "".join(f"q{i}\td{i}\t1\n" for i in range(len(pairs)))
    for split in ("train", "test"):
        (folder / f"qrels/{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    return folder


@pytest.fixture
def pointwise(tiny, sample, texts):
    def make(output, *more, family="qwen3"):
        data = texts if family in ("qwen3", "bert") else sample / "train"
        base = ["task=pointwise", f"output={output}", f"model.backbone={tiny(family)}", f"data.path={data}"]
        base += ["device=cpu", "threads=1", "train.batch_size=4", "train.max_steps=3", "train.learning_rate=1e-3"]
        base += ["model.max_query_tokens=60", "model.max_document_tokens=60", 'rerank.instruction=""']
        return load_config(None, [*base, *more])

    return make


def trained(folder):
    return {
        f"{path.parent.name}/{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def records(count, prefix):
    kind = Query if prefix == "q" else Document
    return Records.of([kind(f"{prefix}{i}", f"{prefix} text {i}") for i in range(count)])


def test_negatives_are_own_ones_first_then_random_ones_that_are_no_answers():
    triples = [Triple("q0", "d0", ("d1", "d2", "d3")), Triple("q1", "d4", ("d5",)), Triple("q2", "d6")]
    answers = {"q0": {"d0", "d7"}, "q1": {"d4", "d8"}, "q2": {"d6", "d9"}}
    data = PointwiseData(Mixture([Examples(records(3, "q"), records(10, "d"), triples)]), answers, 3, seed=0)
    seen = {i: set() for i in range(3)}
    for epoch in range(30):
        data.set_epoch(epoch)
        for i in range(3):
            names = [document.id for document in (*data[i].negatives, *data[i].spare)]
            assert len(set(names)) == 3 and not {data[i].positive.id, *answers[f"q{i}"]} & set(names)
            assert names == [document.id for document in (*data[i].negatives, *data[i].spare)], (
                "the same index gave others"
            )
            seen[i] |= set(names)
        assert {document.id for document in data[0].negatives} == {"d1", "d2", "d3"}
        assert data[1].negatives[0].id == "d5"
    assert seen[1] == {f"d{i}" for i in range(10)} - answers["q1"]
    assert seen[2] == {f"d{i}" for i in range(10)} - answers["q2"]
    few = PointwiseData(data.examples, answers, 9, seed=0)
    assert len(few[2].spare) == 8  # all there are


def test_negatives_of_several_sources_are_of_their_own():
    parts = [Examples(records(1, "q"), records(4, "d"), [Triple("q0", "d0")]) for _ in range(2)]
    data = PointwiseData(Mixture(parts), {"0:q0": {"0:d0"}, "1:q0": {"1:d0", "1:d1"}}, 5, seed=0)
    assert {document.id for document in data[0].spare} == {"0:d1", "0:d2", "0:d3"}
    assert {document.id for document in data[1].spare} == {"1:d2", "1:d3"}


def test_other_queries_positives_stand_in_for_missing_negatives_before_random_ones():
    a, b, c, d, e, f = (Document(name) for name in "abcdef")
    asked = Question(Query("q"), a, (b,), (d, e), frozenset("ac"))
    assert candidates(asked, [a, c, f]) == [a, b, f, d]  # c answers it too
    assert candidates(asked, [a, b, b]) == [a, b, d, e]
    assert candidates(asked, [a, f, d, e]) == [a, b, f, d]
    assert candidates(replace(asked, spare=()), [a, f]) == [a, b]  # has enough of its own


def test_a_batch_scores_each_prompt_where_it_belongs(pointwise, tmp_path):
    config = pointwise(tmp_path / "o", "train.negatives=2")
    model = rerank_pointwise.create(config).eval()
    examples = [rerank_pointwise.examples(config)[i] for i in range(3)]
    examples[1] = replace(examples[1], spare=examples[1].spare[:1])
    batch = rerank_pointwise.collator(config, model)(examples)
    assert batch["places"].tolist() == [[0, 1, 2], [3, 4, -1], [5, 6, 7]]
    with torch.no_grad():
        found = model(batch["inputs"])
        expected = [
            model(model.prompt.whole(example.query, [document])[0]).item()
            for example in examples
            for document in candidates(example, [other.positive for other in examples])
        ]
        assert torch.allclose(found, torch.tensor(expected), atol=1e-4)
        loss = rerank_pointwise.compute_loss(config, model, batch)
    scores, there = found[batch["places"]], batch["places"] >= 0
    labels = torch.tensor([[1.0, 0, 0]] * 3)
    assert torch.allclose(loss, binary_cross_entropy(scores, labels, there))


@pytest.mark.parametrize(
    ("family", "loss", "tuning"),
    [("qwen3", "softmax", "lora"), ("bert", "pairwise", "full"), ("internvl", "bce", "full")],
)
def test_training_leaves_a_reranker_that_tells_documents_apart(family, loss, tuning, pointwise, tmp_path):
    more = [f"rerank.loss={loss}", f"model.tuning={tuning}", "train.max_steps=4"]
    more += ["train.negatives=3", "lora.dropout=0.1", "train.gradient_checkpointing=true", "train.weight_decay=0.01"]
    config = pointwise(tmp_path / "o", *more, "train.learning_rate=3e-3", family=family)
    reranker = open_reranker(train(config))
    assert reranker.model.description.rerank.loss == loss
    collection = read_collection(config.data.path, config.data)
    scores = reranker.score(collection.queries[0], collection.documents[:5])
    assert ((scores > 0) & (scores < 1)).all() and np.ptp(scores) > 0
    assert reranker.name == "o" and json.loads((tmp_path / "o/environment.json").read_text())["processes"] == 1


def test_a_rerankers_loss_goes_down_to_nothing_on_what_it_has_seen(pointwise, tmp_path):
    """It can learn: one batch, over and over, until every positive is above its negatives."""
    config = pointwise(tmp_path / "o", "train.negatives=3", "rerank.loss=softmax")
    torch.manual_seed(0)
    model = rerank_pointwise.create(config).train()
    data = rerank_pointwise.examples(config)
    batch = rerank_pointwise.collator(config, model)([data[i] for i in range(4)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(100):
        optimizer.zero_grad()
        loss = rerank_pointwise.compute_loss(config, model, batch)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def watched(pointwise, sample):
    more = ["train.max_steps=5", "train.save_steps=2", "train.log_steps=1", "model.tuning=lora", "lora.dropout=0.2"]
    more += ["train.accumulation=2", "train.negatives=1", "train.eval_steps=2", "rerank.mode=ground_truth"]
    more += ["rerank.sampled=5", "rerank.queries=4", "train.best_metric=ndcg_at_10", "train.learning_rate=3e-3"]
    more += [f"data.eval_path={sample}/test", 'rerank.instruction=""', "train.patience=9"]
    return lambda output, *extra: pointwise(output, *more, *extra, family="internvl")


@pytest.mark.parametrize("step", [3])
def test_a_killed_run_goes_on_to_the_same_weights(step, pointwise, sample, tmp_path):
    settings = watched(pointwise, sample)
    whole = trained(train(settings(tmp_path / "whole")))
    output = tmp_path / "cut"
    save_config(settings(output), tmp_path / "given.yaml")
    command = [sys.executable, "train.py", "--config", str(tmp_path / "given.yaml")]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    path = output / "metrics.jsonl"
    while not path.exists() or path.read_text().count('"loss"') < step:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (output / "checkpoint").exists()
    assert same(trained(train(settings(output))), whole)
    numbers = [
        {k: v for k, v in line.items() if k.startswith(("loss", "kept")) or "_at_" in k} for line in lines(output)
    ]
    assert numbers == [
        {k: v for k, v in line.items() if k.startswith(("loss", "kept")) or "_at_" in k}
        for line in lines(tmp_path / "whole")
    ]


def test_the_best_epoch_is_kept_and_named(pointwise, tmp_path, caplog, monkeypatch):
    """Judged each epoch where nothing else is said; the first is made the best, and its weights are what is left."""
    values, seen = iter([0.9, 0.5, 0.7]), []
    from colmrl.training.rerank_trainer import HeldOutCandidates

    def judge(self, reranker):
        seen.append({name: p.detach().clone() for name, p in reranker.model.named_parameters()})
        return {"ndcg_at_10": next(values)}

    monkeypatch.setattr(HeldOutCandidates, "judge", judge)
    more = ["train.max_steps=-1", "train.epochs=9", "train.batch_size=10", "train.best_metric=ndcg_at_10"]
    more += ["train.patience=2", "rerank.mode=ground_truth"]
    with caplog.at_level("INFO"):
        checkpoint = train(pointwise(tmp_path / "o", *more))
    model = open_reranker(checkpoint).model
    assert len(seen) == 3
    assert all(torch.equal(p, seen[0][name]) for name, p in model.named_parameters())
    assert any(not torch.equal(p, seen[2][name]) for name, p in model.named_parameters())
    last = lines(tmp_path / "o")[-1]
    examples = len(read_training(pointwise(tmp_path / "o").data)[0])
    assert (last["kept_epoch"], last["kept_step"], last["kept_ndcg_at_10"]) == (1.0, -(-examples // 10), 0.9)
    assert "kept: epoch 1 (step" in caplog.text and "nothing better in 2 evaluations" in caplog.text


def test_what_is_measured_is_what_the_checkpoint_gives(pointwise, sample, tmp_path):
    """And training goes on as if it had not been looked at."""
    settings = watched(pointwise, sample)
    reranker = open_reranker(train(settings(tmp_path / "o")))
    from colmrl.training.rerank_trainer import HeldOutCandidates

    judged = HeldOutCandidates(settings(tmp_path / "o")).judge(reranker)
    kept = lines(tmp_path / "o")[-1]
    assert kept["kept_ndcg_at_10"] == pytest.approx(judged["ndcg_at_10"], abs=1e-6)
    unseen = settings(tmp_path / "unseen", "train.eval_steps=null", "train.best_metric=null", "train.patience=null")
    train(unseen)
    losses = [[line["loss"] for line in lines(tmp_path / name) if "loss" in line] for name in ("o", "unseen")]
    assert losses[0] == losses[1]


def test_what_a_reranker_cannot_do_is_said(pointwise, tmp_path):
    for setting in ("train.mini_batch_size=2", "train.ema=0.9", "train.tower_cache=x", "train.auto_batch=0.9"):
        with pytest.raises(InputError, match=f"{setting.partition('=')[0]}: of task: retriever alone"):
            train(pointwise(tmp_path / "o", setting))
    with pytest.raises(InputError, match=r"train\.patience: 2: nothing to wait for"):
        train(pointwise(tmp_path / "o", "train.patience=2"))
    with pytest.raises(InputError, match=r"train\.best_metric: 'ndcg': is not measured: choose from"):
        train(pointwise(tmp_path / "o", "train.best_metric=ndcg", "train.eval_steps=1", "rerank.queries=2"))
    (tmp_path / "p/checkpoint").mkdir(parents=True)
    with pytest.raises(InputError, match="exists already"):
        train(pointwise(tmp_path / "p"))
