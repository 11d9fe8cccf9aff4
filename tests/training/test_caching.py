"""Training on cached features is training, without the tower; and a cache is never stale."""

import json
import logging
import shutil
from collections import namedtuple

import pytest
import torch
from conftest import VISION
from engine import assert_same, examples, gradients
from PIL import Image
from safetensors.torch import load_file
from test_distributed import run

from colmrl.data.mixture import Mixture
from colmrl.data.records import Document, Examples, Query, Records, Triple
from colmrl.errors import InputError
from colmrl.models import feature_cache
from colmrl.models.retriever import Retriever
from colmrl.training import caching
from colmrl.training.batches import Collator, ExampleDataset
from colmrl.training.caching import prepare_cache
from colmrl.training.run import train

LORA = ["model.tuning=lora", "lora.dropout=0.2"]
SIZES = [(64, 64), (200, 60), (64, 128), (90, 70)]


def shown_to(family, folder):
    """The sample, or texts for a model that sees no pictures."""
    if family in VISION:
        return []
    rows = [{"query": f"red {i}", "pos": f"circle {'and ring ' * i}", "negs": [f"ring {i}"]} for i in range(6)]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["model.document_fields=[text]", f"data.triples={folder}/t.jsonl"]


def dataset_of(config, count=6):
    """Of the sample's first examples, each with up to two hard negatives."""
    made, positives = examples(config, count)
    documents = {d.id: d for e in made for d in (e.positive, *e.negatives)}
    triples = [Triple(e.query.id, e.positive.id, tuple(d.id for d in e.negatives)) for e in made]
    parts = Examples(Records.of([e.query for e in made]), Records.of([*documents.values()]), triples)
    return ExampleDataset(Mixture([parts]), 2, 0), positives


def batch_of(config, inputs, count=6):
    made, positives = examples(config, count)
    return Collator(inputs, positives, config.train.mini_batch_size)(made)


def blind(model, whole):
    """Nothing frozen may run from now on."""

    def refuse(*_):
        raise AssertionError("ran")

    for module in [model.backbone.model] if whole else model.backbone.vision_modules:
        module.register_forward_pre_hook(refuse)


def both_ways(config, precision=None, dropout=True):
    """Loss and gradients of a step without and with a cache."""
    model = Retriever.create(config)
    if not dropout:
        for module in model.modules():
            module.p = 0.0 if isinstance(module, torch.nn.Dropout) else getattr(module, "p", None)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    cached = config.train.mini_batch_size is not None
    plain = gradients(config, model, batch_of(config, model.inputs), cached, precision)
    inputs = prepare_cache(config, model, dataset_of(config)[0], config.train.mini_batch_size)
    blind(model, config.model.tuning == "frozen")
    batch = batch_of(config, inputs)
    assert not any("pixel_values" in chunk for chunk in batch["chunks"])
    return plain, gradients(config, model, batch, cached, precision)


def assert_equal(one, other):
    assert one[0] == other[0] and one[1].keys() == other[1].keys() and one[1]
    assert all(torch.equal(value, other[1][name]) for name, value in one[1].items())


@pytest.mark.parametrize("family", VISION)
def test_records_differ_in_nothing_but_their_pixels(family, settings, tmp_path):
    images = []
    for number, size in enumerate(SIZES):
        Image.linear_gradient("L").resize(size).convert("RGB").save(tmp_path / f"{number}.png")
        images.append(str(tmp_path / f"{number}.png"))
    documents = [
        Document("a", text="red circle", images=(images[0],)),
        Document("b", "a much longer text", "", tuple(images[1:3])),
        Document("c", images=(images[3], images[0])),
        Document("d", text="no picture, and <|image_pad|><IMG_CONTEXT> is text"),
    ]
    queries = [Query("q", "blue", (images[1],))]
    config = settings(tmp_path / "a", *LORA, f"train.tower_cache={tmp_path}/c", family=family)
    model = Retriever.create(config).eval()
    names = [d.id for d in documents]
    part = Examples(Records.of(queries), Records.of(documents), [Triple("q", "a", tuple(names[1:]))])
    inputs = prepare_cache(config, model, ExampleDataset(Mixture([part]), 3, 0))
    built = [*inputs.each_document(documents), *inputs.each_query(queries)]
    expected = [*model.inputs.each_document(documents), *model.inputs.each_query(queries)]
    for one, plain in zip(built, expected, strict=True):
        assert one.keys() - {"image_features", "deepstack_features"} == plain.keys() - {"pixel_values"}
        for name in one.keys() & plain.keys():
            assert one[name].dtype == plain[name].dtype and torch.equal(one[name], plain[name]), name
    blind_free = [model.backbone(model.inputs.join([plain]))[0] for plain in expected]
    blind(model, whole=False)
    for one, hidden in zip(built, blind_free[:3], strict=False):
        assert torch.allclose(model.backbone(inputs.join([one]))[0], hidden, atol=1e-5)


@pytest.mark.parametrize("half", [[], ["model.dtype=bf16"], ["train.precision=bf16"]], ids=["fp32", "bf16", "autocast"])
@pytest.mark.parametrize("family", VISION)
def test_a_step_on_the_towers_cached_features_is_the_step(family, half, settings, tmp_path):
    overrides = [*LORA, *half, f"train.tower_cache={tmp_path}/c"]
    precision = torch.bfloat16 if "train.precision=bf16" in half else None
    one_by_one = settings(tmp_path / "a", *overrides, "train.mini_batch_size=1", family=family)
    assert_equal(*both_ways(one_by_one, precision))
    if not half:
        shutil.rmtree(tmp_path / "c")
        assert_same(*both_ways(settings(tmp_path / "a", *overrides, family=family)))


@pytest.mark.parametrize("half", [[], ["model.dtype=bf16"], ["train.precision=bf16"]], ids=["fp32", "bf16", "autocast"])
@pytest.mark.parametrize("family", ["internvl", "qwen3_vl", "qwen3", "bert"])
def test_a_step_on_cached_hidden_states_is_the_step(family, half, settings, tmp_path):
    overrides = ["model.tuning=frozen", *half, f"train.tower_cache={tmp_path}/c", "single.projection=128"]
    overrides += shown_to(family, tmp_path)
    precision = torch.bfloat16 if "train.precision=bf16" in half else None
    one_by_one = settings(tmp_path / "a", *overrides, "train.mini_batch_size=1", family=family)
    assert_equal(*both_ways(one_by_one, precision, dropout=False))
    if not half:
        shutil.rmtree(tmp_path / "c")
        assert_same(*both_ways(settings(tmp_path / "a", *overrides, family=family), dropout=False))


@pytest.mark.parametrize("tuning", ["lora", "frozen"])
def test_a_run_with_a_cache_ends_with_the_same_weights(tuning, settings, tmp_path):
    overrides = [f"model.tuning={tuning}", "lora.dropout=0.2", "train.mini_batch_size=1", "train.max_steps=3"]
    plain = train(settings(tmp_path / "a", *overrides))
    cached = [*overrides, f"train.tower_cache={tmp_path}/c", "train.workers=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caching, "_GROUP", 16)
        ended = train(settings(tmp_path / "b", *cached))
    files = [path.relative_to(plain) for path in plain.rglob("*.safetensors")]
    assert files
    for file in files:
        one, other = load_file(plain / file), load_file(ended / file)
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_two_processes_share_the_work(tiny, sample, tmp_path):
    base = [f"model.backbone={tiny('internvl')}", f"data.path={sample}/train", f"output={tmp_path}/a", "device=cpu"]
    base += ["multi.dims=[16]", "single.dims=[16]", "train.max_steps=2", "train.batch_size=4"]
    run("one_cache.py", 2, *base, *LORA, f"train.tower_cache={tmp_path}/c")
    indices = [path for path in (tmp_path / "c").rglob("*.json") if path.name != "about.json"]
    keys = [{key for key, *_ in json.loads(path.read_text())} for path in indices]
    assert len(keys) == 2 and not keys[0] & keys[1] and abs(len(keys[0]) - len(keys[1])) <= 1
    assert len(keys[0] | keys[1]) == 48 and (tmp_path / "a/checkpoint").is_dir()


@pytest.fixture
def filling(settings, tmp_path):
    """overrides → how many entries a run of `prepare_cache` computes."""

    def count(*overrides, dataset=None, change=None, family="internvl"):
        tuning = [] if any("tuning" in one for one in overrides) else LORA
        config = settings(tmp_path / "a", *tuning, f"train.tower_cache={tmp_path}/c", *overrides, family=family)
        model = Retriever.create(config)
        if change:
            change(model)
        computed = []
        with pytest.MonkeyPatch.context() as patch:
            compute = caching.compute
            patch.setattr(caching, "compute", lambda *a, **k: (computed.extend([] if k else a[2]), compute(*a, **k))[1])
            prepare_cache(config, model, dataset or dataset_of(config)[0])
        return len(computed)

    return count


def test_what_is_there_is_not_computed_again(filling):
    first = filling()
    assert first > 4 and filling() == 0 and filling("seed=5", "loss.pairwise=1", "model.query_prompt=Q {text}") == 0


def nudge(model):
    with torch.no_grad():
        next(model.backbone.vision_modules[-1].parameters()).view(-1)[0] += 1e-3


def test_another_weight_budget_or_precision_is_another_entry(filling):
    first = filling()
    for changed in ({"change": nudge}, {"change": None}):
        assert filling(**changed) == (first if changed["change"] else 0)
    for other in ("train.precision=bf16", "model.dtype=bf16", "model.max_pixels=20000"):
        assert filling(other) == first, other
    assert filling("model.max_pixels=256", family="qwen3_vl") == first
    assert filling("model.max_pixels=512", family="qwen3_vl") == first


def test_hidden_states_depend_on_prompts_attention_and_every_weight(filling):
    def last(model):
        with torch.no_grad():
            [*model.backbone.parameters()][-1].view(-1)[0] += 1e-3

    frozen = "model.tuning=frozen"
    first = filling(frozen)
    assert filling(frozen) == 0 and filling(frozen, change=last) == first
    assert filling(frozen, "model.attention=bidirectional") == first
    assert 0 < filling(frozen, "model.query_prompt=Q {text}") < first
    assert filling(frozen, "model.padding_side=right") == first


def pictures(folder, **colours):
    """Documents with a picture each, all relevant to one query."""
    documents = []
    for name, colour in colours.items():
        Image.new("RGB", (64, 64), colour).save(folder / f"{name}.png")
        documents.append(Document(name, images=(str(folder / f"{name}.png"),)))
    triples = [Triple("q", document.id) for document in documents]
    return ExampleDataset(Mixture([Examples(Records.of([Query("q", "a")]), Records.of(documents), triples)]), 0, 0)


def test_equal_pictures_under_several_names_are_one_entry_and_a_changed_one_is_new(filling, settings, tmp_path):
    assert filling(dataset=pictures(tmp_path, a="red", b="red", c="blue")) == 2
    dataset = pictures(tmp_path, a="red", b="red", c="green")
    assert filling(dataset=dataset) == 1
    config = settings(tmp_path / "a", *LORA, f"train.tower_cache={tmp_path}/c")
    model = Retriever.create(config)
    inputs = prepare_cache(config, model, dataset)
    document = dataset[2].positive
    entry = inputs.each_document([document])[0]["image_features"]
    seen = model.backbone.image_features(model.inputs.join(model.inputs.each_document([document])))
    assert torch.allclose(entry, seen["image_features"].detach(), atol=1e-5)
    pictures(tmp_path, c="white")
    with pytest.raises(InputError, match=r"document 'c': .*c.png: not in train.tower_cache"):
        inputs.each_document([document])


def test_negatives_that_are_not_trained_with_are_not_cached(filling, settings, tmp_path):
    config = settings(tmp_path / "a", *LORA)
    dataset = dataset_of(config)[0]
    none = ExampleDataset(dataset.examples, 0, 0)
    few, many = filling(dataset=none), filling(dataset=dataset)
    assert few == len({e.positive.id for e in dataset.examples}) and many > 0


def test_filling_that_was_killed_goes_on(filling, monkeypatch, tmp_path):
    monkeypatch.setattr(caching, "_GROUP", 1)
    monkeypatch.setattr(feature_cache, "_SHARD_BYTES", 1)
    compute, calls = caching.compute, []

    def dies(*args, **kwargs):
        calls.append(0)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return compute(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caching, "compute", dies)
        with pytest.raises(KeyboardInterrupt):
            filling()
    rest = filling()
    shutil.rmtree(tmp_path / "c")
    assert 0 < rest == filling() - (5 - 2)  # two calls look for dropout


def test_a_disk_without_room_is_refused_before_anything_is_written(filling, monkeypatch, tmp_path, caplog):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with caplog.at_level(logging.INFO), pytest.raises(InputError, match=r"needs \d+ of \d+ pictures × .* are free"):
        filling()
    assert "to compute" in caplog.text and not (tmp_path / "c").exists()


def test_the_estimate_is_what_the_cache_takes(filling, tmp_path, monkeypatch):
    seen = []
    room = caching._check_room
    monkeypatch.setattr(caching, "_check_room", lambda *args: seen.append(args) or room(*args))
    count = filling()
    _, _, sizes, missing, work = seen[0]
    written = sum(path.stat().st_size for path in (tmp_path / "c").rglob("*.tensors"))
    assert missing == work == count and sum(sizes) / len(sizes) * missing == pytest.approx(written)


@pytest.mark.parametrize(
    ("overrides", "family", "message"),
    [
        (["model.tuning=full"], "internvl", "vision tower is trained"),
        (["model.tuning=lora", "lora.vision=true"], "qwen2_5_vl", "vision tower is trained"),
        (["model.tuning=lora", r"lora.targets=.*\.q_proj"], "internvl", "vision tower is trained"),
        (["model.tuning=lora"], "bert", "bert has no vision tower"),
    ],
)
def test_what_is_trained_is_not_cached(overrides, family, message, settings, tmp_path):
    overrides = [*overrides, *shown_to(family, tmp_path), f"train.tower_cache={tmp_path}/c"]
    config = settings(tmp_path / "a", *overrides, family=family)
    with pytest.raises(InputError, match=rf"train.tower_cache: {tmp_path}/c: .*{message}"):
        train(config)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(("family", "drawn"), [("bert", True), ("internvl", False)])
def test_dropout_of_the_frozen_part_is_said_and_left_out(family, drawn, settings, tmp_path, caplog):
    overrides = ["model.tuning=frozen", f"train.tower_cache={tmp_path}/c", *shown_to(family, tmp_path)]
    config = settings(tmp_path / "a", *overrides, family=family)
    model, dataset = Retriever.create(config).train(), dataset_of(config)[0]
    state = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        inputs = prepare_cache(config, model, dataset)
    assert ("has dropout" in caplog.text) is drawn and model.training
    assert torch.equal(torch.get_rng_state(), state)
    document = dataset[0].positive
    states = model.eval().backbone(model.inputs.documents([document]))[0]
    assert torch.allclose(inputs.each_document([document])[0]["hidden"], states.detach(), atol=1e-5)


def test_cached_states_know_where_their_tokens_are(settings, tmp_path):
    config = settings(tmp_path / "a", "model.tuning=frozen", f"train.tower_cache={tmp_path}/c")
    model, dataset = Retriever.create(config), dataset_of(config)[0]
    inputs = prepare_cache(config, model, dataset)
    documents = [example.positive for example in dataset.examples]
    cached, plain = (each.documents(documents)["positions"] for each in (inputs, model.inputs))
    assert torch.equal(cached, plain) and (plain >= 0).any() and (plain < 0).any()
