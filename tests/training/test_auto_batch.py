"""The largest chunk that fits is found, by what is measured, and the search leaves no trace."""

import logging
import math
from pathlib import Path

import pytest
import torch

from colmrl.data.mixture import Mixture
from colmrl.data.reading import read_training
from colmrl.data.records import Document, Examples, Query, Records, Triple
from colmrl.errors import InputError
from colmrl.models.inputs import tokens
from colmrl.models.retriever import Retriever
from colmrl.training import auto_batch
from colmrl.training.auto_batch import choose_mini_batch, device_bytes, largest_that_fits, longest_record, peak_bytes
from colmrl.training.batches import ExampleDataset


def test_the_largest_that_fits_is_found_in_few_tries():
    for most in range(1, 70):
        for largest in range(most + 1):
            tried = []

            def fits(size, largest=largest, tried=tried):
                tried.append(size)
                return size <= largest

            assert largest_that_fits(fits, most) == largest
            assert len(tried) == len(set(tried)) <= 2 * math.log2(most) + 2
            assert max(tried) <= min(most, max(1, 2 * largest))  # never more than twice what is known to fit


@pytest.fixture
def texts():
    """Queries of one token more each, with a document."""
    queries = Records.of([Query(f"q{n}", "red " * (n + 1)) for n in range(30)])
    documents = Records.of([Document("d", "blue")])
    return ExampleDataset(Mixture([Examples(queries, documents, [Triple(q.id, "d") for q in queries])]), 0, 0)


def test_the_longest_record_is_tried(settings, tmp_path, texts, sample):
    model = Retriever.create(settings(tmp_path / "a"))
    assert tokens(longest_record(model, texts, 0)) == tokens(model.inputs.queries([texts[29].query]))
    config = settings(tmp_path / "a")
    pictures = ExampleDataset(read_training(config.data)[0], 0, 0)
    assert "pixel_values" in longest_record(model, pictures, 0)


def test_the_peak_is_what_matters_of_a_pass_and_grows_with_it(settings, tmp_path):
    model = Retriever.create(settings(tmp_path / "a", "model.tuning=lora"))
    record = model.inputs.each_query([Query("q", "red circle " * 40)])[0]
    weights = sum(p.nbytes for p in model.parameters()) + sum(b.nbytes for b in model.buffers())
    peaks = [peak_bytes(model, model.inputs.join([record] * size)) for size in (4, 8, 16)]
    assert weights < peaks[0] < peaks[1] < peaks[2]
    assert peaks[2] - peaks[1] == pytest.approx(2 * (peaks[1] - peaks[0]), rel=0.2)  # activations: linear in records
    # at least what autograd holds on to
    saved: dict[int, int] = {}

    def seen(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        embedded = model.train()(model.inputs.join([record] * 16))
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held = sum(size for place, size in saved.items() if place not in own)
    assert held < peaks[2] - weights < 2.5 * held and embedded.single is not None


@pytest.mark.parametrize("mode", [True, False])
def test_the_search_leaves_weights_gradients_and_random_state_as_they_were(mode, settings, tmp_path, texts, caplog):
    config = settings(
        tmp_path / "a", "train.auto_batch=1", "train.batch_size=3", "model.tuning=lora", "lora.dropout=0.5"
    )
    model = Retriever.create(config).train(mode)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    with caplog.at_level(logging.INFO):
        assert choose_mini_batch(config, model, texts) == 6  # all of the batch's records
    assert torch.equal(torch.get_rng_state(), state) and model.training is mode
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert "mini_batch_size 6" in caplog.text and "GiB" in caplog.text


def test_what_was_found_is_the_largest_within_the_fraction(settings, tmp_path, texts, monkeypatch):
    config = settings(tmp_path / "a", "train.auto_batch=0.5", "train.batch_size=8")
    model = Retriever.create(config)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    record = longest_record(model, texts, config.seed)
    peaks = {size: peak_bytes(model, model.inputs.join([record] * size)) + 8 * trained for size in (5, 6)}
    monkeypatch.setattr(auto_batch, "device_bytes", lambda device: peaks[5] + peaks[6])  # half of it: between the two
    assert choose_mini_batch(config, model, texts) == 5
    monkeypatch.setattr(auto_batch, "device_bytes", lambda device: 1000)
    with pytest.raises(InputError, match=r"auto_batch: 0\.5: one record of \d+ tokens takes .*max_pixels"):
        choose_mini_batch(config, model, texts)


def test_memory_that_runs_out_is_a_size_that_does_not_fit(settings, tmp_path, texts, monkeypatch):
    config = settings(tmp_path / "a", "train.auto_batch=1", "train.batch_size=8")
    model = Retriever.create(config)

    def peak(model, batch, dtype):
        if len(batch["input_ids"]) > 11:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return 0

    monkeypatch.setattr(auto_batch, "peak_bytes", peak)
    assert choose_mini_batch(config, model, texts) == 11


def test_a_budget_of_tokens_and_a_size_to_be_found_are_refused_together(settings, tmp_path, texts):
    config = settings(tmp_path / "a", "train.auto_batch=0.5", "train.mini_batch_tokens=4")
    with pytest.raises(InputError, match=r"train\.auto_batch: finds train\.mini_batch_size"):
        choose_mini_batch(config, Retriever.create(config), texts)


def test_what_is_found_takes_the_place_of_the_recipes_size(settings, tmp_path, texts, monkeypatch):
    config = settings(tmp_path / "a", "train.auto_batch=0.5", "train.mini_batch_size=2", "train.batch_size=3")
    monkeypatch.setattr(auto_batch, "peak_bytes", lambda *_: 0)
    assert choose_mini_batch(config, Retriever.create(config), texts) == 3 * (2 + texts.negatives)


def test_the_memory_of_this_machine_is_known():
    total = next(
        int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")
    )
    assert device_bytes(torch.device("cpu")) == pytest.approx(total * 1024, rel=0.05)
