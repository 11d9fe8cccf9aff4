"""Shapes are checked while tests run (jaxtyping + beartype); tiny models of the real architectures for all."""

from jaxtyping import install_import_hook

install_import_hook("colmrl", "typechecking.tower")

from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import get_args  # noqa: E402

import pytest  # noqa: E402

from colmrl.config import Config, TinyFamily  # noqa: E402
from colmrl.configure import load_config  # noqa: E402
from colmrl.data.sample import write_sample  # noqa: E402
from colmrl.encoding import encode  # noqa: E402
from colmrl.models.tiny import write_tiny_model  # noqa: E402
from colmrl.search import Ranking, search  # noqa: E402
from colmrl.store import EmbeddingStore  # noqa: E402
from colmrl.training.run import train  # noqa: E402
from colmrl.view import View  # noqa: E402

FAMILIES = get_args(TinyFamily)
VISION = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl")


def search_store(store: Path, view: View, k: int, only: set[str] | None = None) -> Ranking:
    """Search a store by its folder."""
    return search(EmbeddingStore(store / "queries"), EmbeddingStore(store / "documents"), view, k, only=only)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """family → a folder with its tiny model, written once."""
    root = tmp_path_factory.mktemp("tiny")

    def folder(family: str) -> Path:
        return root / family if (root / family).exists() else write_tiny_model(family, root / family)

    return folder


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sample data set: 48 training and 24 test pictures."""
    return write_sample(tmp_path_factory.mktemp("sample") / "data", 0, train_families=6, test_families=3)


@pytest.fixture(scope="session")
def settings(tiny: Callable[[str], Path], sample: Path) -> Callable[..., Config]:
    """Configuration for the sample and a tiny InternVL, with overrides."""

    def make(output: Path, *overrides: str, family: str = "internvl") -> Config:
        base = [
            f"output={output}",
            f"model.backbone={tiny(family)}",
            f"data.path={sample}/train",
            "device=cpu",
            "threads=1",
            "threads=1",
        ]
        base += ["train.batch_size=8", "train.max_steps=2", "train.learning_rate=1e-3", "encode.shard_size=10"]
        return load_config(None, [*base, "single.dims=[128,32]", "multi.dims=[64,16]", *overrides])

    return make


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, settings: Callable[..., Config]) -> Path:
    """A tiny InternVL after two steps."""
    return train(settings(tmp_path_factory.mktemp("run") / "a"))


@pytest.fixture(scope="session")
def store(checkpoint: Path, settings: Callable[..., Config], sample: Path) -> Path:
    """The training pictures and queries of the sample, encoded by `checkpoint` in shards of ten."""
    return encode(settings(Path("unused")), checkpoint, sample / "train", checkpoint.parent / "store")


@pytest.fixture
def processors_without_video(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' AutoProcessor wants torchvision for every processor with a video part; nothing else is replaced in
    sentence-transformers."""
    from sentence_transformers.base.modules import transformer

    from colmrl.models.processors import load_processor

    class Loader:
        @staticmethod
        def from_pretrained(source: str, **_: object) -> object:
            return load_processor(source, None, None)

    monkeypatch.setattr(transformer, "AutoProcessor", Loader)
