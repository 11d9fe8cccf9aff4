"""What `python benchmarks/run.py encode` encodes, and by what: small random models whose patches and budgets are those
of the real ones, pages of many shapes and sizes, texts of many lengths. Nothing is downloaded.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from transformers import AutoConfig, AutoModel

from colmrl.configure import load_config
from colmrl.data.sample import vocabulary
from colmrl.exporting.run import Asked, export
from colmrl.models.retriever import Retriever
from colmrl.models.tiny import write_tiny_model

SHARED = Path(__file__).parents[2] / "shared"
VISUAL_TOKENS = 768  # of a page at most, as colpali-engine's models take
# width × height as scans, slides, photographs, receipts and tables come, in pixels; most are larger than the budget
SIZES = [(1240, 1754), (827, 1169), (1600, 900), (960, 540), (1024, 1024), (640, 480), (420, 1500), (1500, 500)]
SIZES += [(600, 848), (300, 420), (1080, 1350), (768, 1024)]
TILE = 224  # InternVL's real tiles are twice as wide; at most 4, and the whole once more


def write_model(family: str, out: Path) -> Path:
    """Tiny, but pictures are cut as the real models cut theirs: 28² pixels a token (Qwen3-VL: 32²), or tiles."""
    write_tiny_model(family, out)
    if family in ("qwen3", "bert"):
        return out
    config = AutoConfig.from_pretrained(out)
    vision = config.vision_config
    if family == "internvl":
        vision.image_size, vision.patch_size = [TILE, TILE], [14, 14]
        config.image_seq_length = (TILE // 28) ** 2
        pictures: dict[str, Any] = {"size": {"height": TILE, "width": TILE}, "max_patches": 4, "crop_to_patches": True}
        processor = json.loads((out / "processor_config.json").read_text())
        processor["image_seq_length"] = config.image_seq_length
    else:
        patch = 16 if family == "qwen3_vl" else 14
        vision.patch_size = patch
        if family == "qwen2_5_vl":
            vision.window_size = 8 * patch
        area = (2 * patch) ** 2
        size = {"shortest_edge": 4 * area, "longest_edge": VISUAL_TOKENS * area}
        pictures = {"patch_size": patch, "size": size}
        processor = json.loads((out / "processor_config.json").read_text())
    processor["image_processor"] |= pictures
    (out / "processor_config.json").write_text(json.dumps(processor))
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(out)
    return out


def write_checkpoint(work: Path, backbone: str, tools: tuple[str, ...], *more: str) -> Path:
    """A checkpoint with both heads and what its peers open, each by `colmrl export`."""
    heads = ["single.dims=[128]", "multi.dims=[128]"]
    model = Retriever.create(load_config(None, [f"model.backbone={backbone}", *heads, *more]))
    model.save(work / "checkpoint")
    for tool in tools:
        folder = export(work / "checkpoint", Asked(tool), work / tool)  # pyright: ignore[reportArgumentType]
        if (folder / "processor_config.json").exists():
            (folder / "video_preprocessor_config.json").write_text(json.dumps(_video(model)))
    return work / "checkpoint"


def _video(model: Retriever) -> dict[str, Any]:
    """What AutoProcessor asks of a folder, and nothing here uses."""
    kind = {"internvl": "InternVL", "qwen3_vl": "Qwen3VL"}.get(model.backbone.family, "Qwen2VL")
    pictures = model.inputs.processor.image_processor
    sizes = {name: getattr(pictures, name) for name in ("patch_size", "merge_size") if hasattr(pictures, name)}
    return {"video_processor_type": f"{kind}VideoProcessor", **sizes}


def write_pages(data: Path, count: int, seed: int = 0) -> None:
    """A data folder of pages with lines of words on them, JPEG and PNG, and no other text."""
    random = np.random.default_rng(seed)
    (data / "pages").mkdir(parents=True)
    lines = []
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        jitter = random.uniform(0.85, 1.15, 2)
        page = _page(random, int(width * jitter[0]), int(height * jitter[1]))
        name = f"pages/{number}.{'png' if number % 4 == 3 else 'jpg'}"
        page.save(data / name, quality=85)
        lines.append(json.dumps({"_id": str(number), "image": name}) + "\n")
    order = random.permutation(count)  # a corpus does not come sorted
    _write(data, [lines[place] for place in order])


def _page(random: np.random.Generator, width: int, height: int) -> Image.Image:
    page = Image.new("RGB", (width, height), tuple(random.integers(235, 256, 3).tolist()))
    draw = ImageDraw.Draw(page)
    words = vocabulary()
    for top in range(20, height - 20, 18):
        text = " ".join(random.choice(words, 2 + width // 50))
        draw.text((20, top), text, fill=tuple(random.integers(0, 120, 3).tolist()))
    side = min(width, height) // 3
    noise = Image.fromarray(random.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
    page.paste(noise.resize((side, side), Image.Resampling.BICUBIC), (width - side - 10, height - side - 10))
    return page


def write_texts(data: Path, count: int, seed: int = 0) -> None:
    """Texts of 3 to 400 words, most of them short."""
    random, words = np.random.default_rng(seed), vocabulary()
    lengths = np.clip(random.lognormal(4, 1, count), 3, 400).astype(int)
    data.mkdir(parents=True)
    _write(data, [_line(n, " ".join(random.choice(words, length))) for n, length in enumerate(lengths)])


def write_scifact(data: Path, count: int) -> None:
    """Every so manieth of SciFact's documents, a title and an abstract."""
    with (SHARED / "data/scifact/corpus.jsonl").open() as file:
        rows = [json.loads(line) for line in file]
    data.mkdir(parents=True)
    chosen = rows[:: max(1, len(rows) // count)][:count]
    _write(data, [_line(n, f"{row['title']} {row['text']}") for n, row in enumerate(chosen)])


def _line(name: int, text: str) -> str:
    return json.dumps({"_id": str(name), "text": text}) + "\n"


def _write(data: Path, lines: list[str]) -> None:
    (data / "corpus.jsonl").write_text("".join(lines))
    (data / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "a page"}) + "\n")
    (data / "qrels").mkdir()
    (data / "qrels/test.tsv").write_text(f"query-id\tcorpus-id\tscore\nq\t{json.loads(lines[0])['_id']}\t1\n")
