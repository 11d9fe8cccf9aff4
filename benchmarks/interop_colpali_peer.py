"""Run in colpali-engine's own environment: small random checkpoints of its classes, and what they make of pages and
queries.

    python interop_colpali_peer.py WORK CLASS=TINY …

TINY is a folder of `colmrl prepare tiny-model`. Writes WORK/CLASS/{base,adapter,merged} and, of each, the vectors and
token ids of WORK/page-*.png and WORK/queries.json: WORK/CLASS/{base,adapter,merged}.safetensors. The adapter is made as
colpali-engine's recipes make theirs: LoRA on the language model and on `custom_text_proj`.
"""

import importlib
import json
import sys
from pathlib import Path

import torch

_OPS = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):  # torchvision describes them as it is imported; its CUDA build cannot define them here
    _OPS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from peft import LoraConfig, get_peft_model  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import AutoConfig, AutoTokenizer, Qwen2VLVideoProcessor  # noqa: E402
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor  # noqa: E402

PROCESSORS = {
    "ColQwen2": "ColQwen2Processor",
    "ColQwen2_5": "ColQwen2_5_Processor",
    "ColQwen3": "ColQwen3Processor",
}
# As in scripts/configs/qwen2/train_colqwen2_model.yaml.
TARGETS = r"(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$)"


def main(work: str, *classes: str) -> None:
    models = importlib.import_module("colpali_engine.models")
    torch.set_num_threads(1)
    for one in classes:
        name, tiny = one.split("=", 1)
        model_class, processor_class = getattr(models, name), getattr(models, PROCESSORS[name])
        write(Path(work) / name, model_class, processor_class, Path(tiny))
        for folder in ("base", "adapter", "merged"):
            vectors(Path(work) / name / folder, model_class, processor_class)


def write(out, model_class, processor_class, tiny) -> None:
    torch.manual_seed(1)
    model = model_class(AutoConfig.from_pretrained(tiny)).eval()
    torch.nn.init.normal_(model.custom_text_proj.bias, std=0.5)  # so that leaving it out is seen
    images = Qwen2VLImageProcessor.from_pretrained(tiny)
    video = Qwen2VLVideoProcessor(patch_size=images.patch_size, merge_size=images.merge_size)
    processor = processor_class(images, AutoTokenizer.from_pretrained(tiny), video)
    model.save_pretrained(out / "base")
    lora = LoraConfig(r=8, lora_alpha=16, init_lora_weights="gaussian", target_modules=TARGETS)
    adapted = get_peft_model(model_class.from_pretrained(out / "base"), lora)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapted.save_pretrained(out / "adapter")
    adapted.merge_and_unload().save_pretrained(out / "merged")
    for folder in ("base", "adapter", "merged"):
        processor.save_pretrained(out / folder)


@torch.no_grad()
def vectors(folder, model_class, processor_class) -> None:
    model = model_class.from_pretrained(folder, dtype=torch.float32).eval()
    processor = processor_class.from_pretrained(folder)
    work = folder.parent.parent
    pages = [Image.open(page) for page in sorted(work.glob("page-*.png"))]
    queries = json.loads((work / "queries.json").read_text())
    found = {}
    for name, batch in (("page", processor.process_images(pages)), ("query", processor.process_queries(queries))):
        embedded = model(**batch)
        for place, mask in enumerate(batch["attention_mask"].bool()):
            found[f"{name}-{place}"] = embedded[place][mask].contiguous()
            found[f"{name}-{place}-ids"] = batch["input_ids"][place][mask].contiguous()
    save_file(found, folder.with_suffix(".safetensors"))


if __name__ == "__main__":
    main(*sys.argv[1:])
