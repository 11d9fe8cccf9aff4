import torch
from safetensors.torch import load_file
from torch import nn

from colmrl.training.ema import AVERAGE, Ema, load_average


def moved(model: nn.Linear, step: int) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(step)))


def test_the_average_is_the_formulas_after_every_step():
    model, ema = nn.Linear(3, 2), Ema(0.5)
    ema.begin(model)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    for step in range(1, 20):
        moved(model, step)
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = {n: decay * expected[n] + (1 - decay) * p.detach() for n, p in model.named_parameters()}
        for name, average in ema.average.items():
            torch.testing.assert_close(average, expected[name])


def test_frozen_weights_have_no_average():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    ema = Ema(0.9)
    ema.begin(model)
    assert set(ema.average) == {"weight"}


def test_swapped_weights_come_back_even_after_an_error():
    model, ema = nn.Linear(3, 2), Ema(0.9)
    ema.begin(model)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    moved(model, 1)
    trained = {name: p.detach().clone() for name, p in model.named_parameters()}
    try:
        with ema.swapped():
            assert all(torch.equal(p, start[name]) for name, p in model.named_parameters())
            raise RuntimeError
    except RuntimeError:
        pass
    assert all(torch.equal(p, trained[name]) for name, p in model.named_parameters())
    assert all(torch.equal(average, start[name]) for name, average in ema.average.items())
    moved(model, 2)
    ema.update(1)  # the average still hears of the weights
    assert not torch.equal(ema.average["weight"], start["weight"])


def test_an_average_goes_on_from_its_resume_point(tmp_path):
    model, ema = nn.Linear(3, 2), Ema(0.9)
    ema.begin(model)
    for step in (1, 2):
        moved(model, step)
        ema.update(step)
    ema.save(tmp_path)
    again = Ema(0.9, str(tmp_path))
    again.begin(model)
    moved(model, 3)
    ema.update(3)
    again.update(3)
    assert all(torch.equal(a, again.average[name]) for name, a in ema.average.items())
    saved = load_file(tmp_path / AVERAGE)
    load_average(model, tmp_path)
    assert all(torch.equal(p, saved[name]) for name, p in model.named_parameters())
