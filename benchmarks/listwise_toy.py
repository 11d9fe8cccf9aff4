"""Why a listwise model that is taught by its answer alone stands still: lists of random words, and one more loss.

    python benchmarks/listwise_toy.py                       # without, and with rerank.relevance: 3 to 4 CPU minutes

A list is 4 candidates of 4 words out of 256; one of the right candidate's words is one of the query's 4, all other
words differ. `[A] a b c d`, the answer is the letter. A random Qwen3, 128 wide, 3 layers, 64 new lists a step, AdamW
1e-3. With relevance: a linear reading of the mean over each candidate's tokens after the second layer, as the
toolkit's, its cross-entropy beside the answer's. Prints means over every 100 steps.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

WORDS, LETTERS, CANDIDATES, LENGTH, WIDTH, READ = 256, 26, 4, 4, 128, 2
OPENED, CLOSED, LINE, ASKED, CALL = range(WORDS + LETTERS, WORDS + LETTERS + 5)
EACH = LENGTH + 4  # tokens of a candidate: [A] a b c d and a line's end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--relevance", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/listwise-toy.json"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for weight in asked.relevance for row in trained(weight, asked.steps, asked.seed)]
    asked.out.write_text(json.dumps({"steps": asked.steps, "seed": asked.seed, "rows": rows}, indent=1) + "\n")


def lists(draw: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Prompts, and which candidate is right."""
    words = torch.rand(count, WORDS, generator=draw).argsort(1)
    query, shown = words[:, :LENGTH], words[:, LENGTH : LENGTH * (CANDIDATES + 1)].reshape(count, CANDIDATES, LENGTH)
    right, from_, to = (torch.randint(n, (count,), generator=draw) for n in (CANDIDATES, LENGTH, LENGTH))
    rows = torch.arange(count)
    shown[rows, right, to] = query[rows, from_]

    def each(token: int) -> Tensor:
        return torch.full((count, 1), token)

    parts = [each(ASKED), query, each(LINE)]
    for place in range(CANDIDATES):
        parts += [each(OPENED), each(WORDS + place), each(CLOSED), shown[:, place], each(LINE)]
    return torch.cat([*parts, each(CALL)], 1), right


def trained(weight: float, steps: int, seed: int) -> list[dict[str, float]]:
    torch.manual_seed(seed)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 3, "head_dim": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": WIDTH**-0.5}
    config = AutoConfig.for_model("qwen3", vocab_size=CALL + 1, tie_word_embeddings=True, **sizes, **heads)
    model, read = AutoModelForCausalLM.from_config(config), nn.Linear(WIDTH, 1, bias=False)
    learnt = [*model.parameters(), *read.parameters()]
    optimizer = torch.optim.AdamW(learnt, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    draw, rows, sums, started = torch.Generator().manual_seed(seed + 1), [], torch.zeros(4), time.perf_counter()
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1, step / 50)
        prompts, right = lists(draw, 64)
        output = model.model(input_ids=prompts, output_hidden_states=True, use_cache=False)
        logits = model.lm_head(output.last_hidden_state[:, -1])
        within = F.rms_norm(output.hidden_states[READ], (WIDTH,))[:, LENGTH + 2 : -1]
        reading = read(within.reshape(len(prompts), CANDIDATES, EACH, WIDTH).mean(2))[:, :, 0]
        answer, relevance = F.cross_entropy(logits, WORDS + right), F.cross_entropy(reading, right)
        optimizer.zero_grad()
        (answer + weight * relevance).backward()
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        named = logits[:, WORDS : WORDS + CANDIDATES].argmax(1)
        hits = [(one == right).float().mean() for one in (named, reading.argmax(1))]
        sums += torch.stack([answer, relevance, *hits]).detach()
        if step % 100 == 0:
            names = ("answer_loss", "reading_loss", "answer_right", "reading_right")
            means = dict(zip(names, (sums / 100).tolist(), strict=True))
            rows.append({"relevance": weight, "step": step, **means, "seconds": time.perf_counter() - started})
            print(json.dumps({name: round(value, 3) for name, value in rows[-1].items()}), flush=True)
            sums.zero_()
    return rows


if __name__ == "__main__":
    main()
