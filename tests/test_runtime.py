import pytest
import torch

from colmrl.configure import load_config
from colmrl.errors import InputError
from colmrl.runtime import use_torch


def test_threads_and_device_are_as_asked():
    before = torch.get_num_threads()
    try:
        assert use_torch(load_config(None, ["threads=1", "device=cpu"])) == "cpu"
        assert torch.get_num_threads() == 1
        torch.set_num_threads(2)
        assert use_torch(load_config(None)) == ("cuda" if torch.cuda.is_available() else "cpu")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_gpu_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device: cuda: torch sees no GPU"):
        use_torch(load_config(None, ["device=cuda"]))
    with pytest.raises(InputError, match="'cpu' or 'cuda'"):
        load_config(None, ["device=gpu0"])
