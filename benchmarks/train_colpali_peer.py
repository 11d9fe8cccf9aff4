"""colpali-engine's part of `train.py`, in its own environment: python train_colpali_peer.py FOLDER

Its trainer, collator, dataset and loss on its model class, opened from what `colmrl export` wrote.
"""

import json
import sys
from pathlib import Path

import torch

_OPS = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):  # torchvision describes them as it is imported; its CUDA build cannot define them here
    _OPS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from colpali_engine.collators import visual_retriever_collator as collating  # noqa: E402
from colpali_engine.data.dataset import ColPaliEngineDataset  # noqa: E402
from colpali_engine.loss.late_interaction_losses import ColbertLoss  # noqa: E402
from colpali_engine.models import ColQwen2_5, ColQwen2_5_Processor  # noqa: E402
from colpali_engine.trainer.contrastive_trainer import ContrastiveTrainer  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from train_measure import adapt, dataset, measure, read_case, settings  # noqa: E402
from transformers import AutoTokenizer, Qwen2VLVideoProcessor, TrainingArguments  # noqa: E402
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil  # noqa: E402
from workers import resident  # noqa: E402


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    case, held = read_case(folder), resident("VmRSS")
    model = ColQwen2_5.from_pretrained(folder / "colpali-engine", dtype=torch.float32)
    if case["tuning"] == "lora":
        adapt(model, model, folder)
    model.custom_text_proj.bias.requires_grad_(False)  # colmrl's projection has none: here it is zeros, and stays so
    trainer = ContrastiveTrainer(
        loss_func=BothWays(temperature=case["temperature"]),
        is_vision_model=True,
        model=model,
        args=TrainingArguments(
            output_dir=str(folder / "peer"),
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            **settings(case),
        ),
        train_dataset=ColPaliEngineDataset(dataset(folder), pos_target_column_name="image"),
        eval_dataset=None,
        data_collator=collating.VisualRetrieverCollator(processor(folder / "colpali-engine", case)),
    )
    print(json.dumps(measure(trainer, trainer.train, case, held)))


def processor(folder: Path, case: dict) -> ColQwen2_5_Processor:
    """With colmrl's prompts in place of its own, so that both see the same tokens; pictures by the PIL backend, which
    is the faster one here."""
    images = Qwen2VLImageProcessorPil.from_pretrained(folder)
    video = Qwen2VLVideoProcessor(patch_size=images.patch_size, merge_size=images.merge_size)
    made = ColQwen2_5_Processor(images, AutoTokenizer.from_pretrained(folder), video)
    made.visual_prompt_prefix, (made.query_prefix, made.query_augmentation_token) = case["page"], case["around_query"]
    collating.N_AUGMENTATION_TOKENS = 1
    return made


class BothWays(ColbertLoss):
    """Its loss is from queries to documents; the other direction, on the same scores, is added."""

    def forward(self, *args, **kwargs):
        there = super().forward(*args, **kwargs)
        back = self.seen.T / self.temperature
        return (there + cross_entropy(back, torch.arange(len(back)))) / 2

    def _inbatch_scores(self, *args, **kwargs):
        self.seen = super()._inbatch_scores(*args, **kwargs)
        return self.seen


if __name__ == "__main__":
    main(Path(sys.argv[1]))
