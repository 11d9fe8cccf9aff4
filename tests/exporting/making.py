"""Checkpoints to export, random but not zero, and their own vectors; a card's code, run."""

import re
from pathlib import Path

import torch
from PIL import Image

from colmrl.config import Config
from colmrl.configure import load_config
from colmrl.data.records import Document, Query
from colmrl.encoding import embed
from colmrl.models.retriever import Embeddings, Retriever

TEXTS = ["red circle", "blue star, it seems.", "green ring and a black cross, or is it a square?"]
QUERIES = [Query(str(number), text) for number, text in enumerate(TEXTS)]
PROMPTS = ['model.query_prompt="Query: {text}"', 'model.document_prompt="Doc: {text}"']


def settings(backbone: Path, *more: str) -> Config:
    return load_config(
        None, [f"model.backbone={backbone}", "single.dims=[128,32]", "multi.dims=[64,16]", *PROMPTS, *more]
    )


def make(out: Path, backbone: Path, *more: str) -> Path:
    model = Retriever.create(settings(backbone, *more))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    model.save(out)
    return out


def documents(sample: Path, pictures: bool) -> list[Document]:
    texts = [Document(str(number), text) for number, text in enumerate(TEXTS)]
    if not pictures:
        return texts
    images = [str(path) for path in sorted((sample / "test/images").iterdir())]
    return [*texts, Document("p", "", images=(images[0],)), Document("b", "red one", images=tuple(images[1:3]))]


def shown(document: Document) -> object:
    """A document as sentence-transformers takes it."""
    if not document.images:
        return document.text
    pictures = [Image.open(path).convert("RGB") for path in document.images]
    picture = {"image": pictures[0] if len(pictures) == 1 else pictures}
    return picture | ({"text": document.text} if document.text else {})


def ours(checkpoint: Path, of: list[Document]) -> tuple[Embeddings, Embeddings]:
    """Queries and documents."""
    model = Retriever.load(checkpoint).eval()
    return embed(model, "queries", QUERIES, 2), embed(model, "documents", of, 2)


def code_of(folder: Path, kind: str = "python") -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", (folder / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def largest_error(theirs: list[torch.Tensor] | torch.Tensor, mine: torch.Tensor) -> float:
    return float((torch.cat(list(theirs)).cpu().float().reshape(mine.shape) - mine).abs().max())
