"""DESIGN §7: the cached gradient is the whole batch's: any chunks, both heads, all dims and budgets, one replay."""

import pytest
import torch
from conftest import VISION
from engine import EVERYTHING, assert_same, batch_of, gradients

from colmrl.models.retriever import Retriever
from colmrl.training.auto_batch import _highest


def test_the_batch_has_what_the_tests_are_about(settings, tmp_path):
    config = settings(tmp_path / "a", *EVERYTHING)
    batch = batch_of(config, Retriever.create(config), 4)
    assert batch["negatives"].shape == (6, 2) and (batch["negatives"] < 0).any()
    assert [len(chunk["input_ids"]) for chunk in batch["chunks"]] == [4, 2, 4, 4, 4, 3]


@pytest.mark.parametrize("size", [1, 3, 4, 15, 100])
def test_the_cached_gradient_is_the_whole_batchs_in_chunks_of(size, settings, tmp_path):
    config = settings(tmp_path / "a", *EVERYTHING)
    model = Retriever.create(config)
    plain = gradients(config, model, batch_of(config, model), cached=False)
    assert_same(plain, gradients(config, model, batch_of(config, model, size), cached=True))


@pytest.mark.parametrize("family", VISION)
def test_every_family_with_pictures_has_the_same_gradient(family, settings, tmp_path):
    config = settings(tmp_path / "a", *EVERYTHING, family=family)
    model = Retriever.create(config)
    plain = gradients(config, model, batch_of(config, model), cached=False)
    assert_same(plain, gradients(config, model, batch_of(config, model, 4), cached=True))


@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl"])
def test_a_plain_step_on_records_of_like_length_has_the_same_gradient(family, settings, tmp_path):
    config = settings(tmp_path / "a", *EVERYTHING, family=family)
    model = Retriever.create(config)
    two, several = batch_of(config, model), batch_of(config, model, pass_tokens=1)
    assert len(two["chunks"]) == 2 < len(several["chunks"])
    plain = gradients(config, model, two, cached=False)
    assert_same(plain, gradients(config, model, several, cached=False))


@pytest.mark.parametrize("head", ["single", "multi"])
def test_a_head_that_the_loss_ignores_gets_a_gradient_of_zero(head, settings, tmp_path):
    config = settings(tmp_path / "a", f"loss.{head}_weight=0", "single.projection=128")
    model = Retriever.create(config)
    plain = gradients(config, model, batch_of(config, model), cached=False)
    cached = gradients(config, model, batch_of(config, model, 4), cached=True)
    assert cached[1][f"{head}.projection.weight"].eq(0).all()
    assert_same(plain, cached)


def test_lora_dropout_draws_the_same_when_replayed(settings, tmp_path):
    config = settings(tmp_path / "a", "model.tuning=lora", "lora.dropout=0.5")
    model = Retriever.create(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)  # zero at the start: dropout before it would show nowhere
    batch = batch_of(config, model, 4)
    in_one_graph = gradients(config, model, batch, cached=False)
    cached = gradients(config, model, batch, cached=True)
    assert_same(in_one_graph, cached)
    model.zero_grad()
    model.eval()
    assert model(*batch["chunks"]).single is not None


def test_a_cached_step_leaves_the_random_state_as_one_pass_does(settings, tmp_path):
    config = settings(tmp_path / "a", "model.tuning=lora", "lora.dropout=0.5")
    model = Retriever.create(config)
    batch = batch_of(config, model, 4)
    after = []
    for cached in (False, True):
        gradients(config, model, batch, cached)
        after.append(torch.get_rng_state())
    assert torch.equal(*after)


def test_gradient_checkpointing_and_bf16_change_nothing_about_it(settings, tmp_path):
    config = settings(tmp_path / "a", *EVERYTHING, "model.tuning=lora", "lora.dropout=0.2")
    model = Retriever.create(config)
    batch = batch_of(config, model, 4)
    plain = gradients(config, model, batch, cached=False)
    half = gradients(config, model, batch, cached=False, precision=torch.bfloat16)
    assert_same(half, gradients(config, model, batch, cached=True, precision=torch.bfloat16), 1e-2)
    model.backbone.checkpoint_gradients()
    assert_same(plain, gradients(config, model, batch, cached=True))


@pytest.mark.slow
def test_the_peak_of_a_cached_step_of_64_queries_is_under_a_third_of_the_plain_steps(settings, tmp_path):
    config = settings(tmp_path / "a")
    model = Retriever.create(config)
    peaks = []
    for size in (None, 16):
        batch = batch_of(config, model, size, count=64)
        model.zero_grad()
        with torch.profiler.profile(profile_memory=True) as seen:
            gradients(config, model, batch, cached=size is not None)
        peaks.append(_highest(seen))
    assert peaks[1] < peaks[0] / 3, peaks
