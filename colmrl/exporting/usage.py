"""Code for a model card that opens a folder with each library. What stands here is run by the tests, from the card."""

from colmrl.exporting.asked import CLASSES
from colmrl.exporting.plain import Plain
from colmrl.exporting.prompts import prompts_around

_TEXTS = '["Wool keeps warm when it is wet.", "The mill was built in 1911."]'
_QUESTION = '["What keeps warm?"]'
_PAGES = '[{"image": Image.new("RGB", (448, 448), "white")}, {"text": "The mill was built in 1911."}]'
_PICTURE = "from PIL import Image\n"


def sentence_transformers(plain: Plain) -> list[str]:
    picture = _PICTURE if plain.sees_pictures else ""
    documents = _PAGES if plain.sees_pictures else _TEXTS
    blocks = []
    if plain.has_single:
        dims = plain.description.single.dims
        blocks.append(f"""{picture}from sentence_transformers import SentenceTransformer

model = SentenceTransformer(".", truncate_dim={dims[0]}){_others(dims)}
queries = model.encode_query({_QUESTION}, normalize_embeddings=True)
documents = model.encode_document({documents}, normalize_embeddings=True)
print(model.similarity(queries, documents))
""")
    if plain.multi is not None:
        dims = plain.description.multi.dims
        blocks.append(f"""{picture}from sentence_transformers import MultiVectorEncoder
from torch.nn.functional import normalize

dim = {dims[0]}{_others(dims)}
model = MultiVectorEncoder(".", similarity_fn_name="meanmaxsim")  # a mean over the query's vectors, as it was trained
queries = [normalize(vectors[:, :dim], dim=-1) for vectors in model.encode_query({_QUESTION})]
documents = model.encode_document({documents})
documents = [normalize(vectors[:, :dim], dim=-1) for vectors in documents]
print(model.similarity(queries, documents))
""")
    return blocks


def pylate(plain: Plain) -> list[str]:
    return [
        f"""from pylate import models, rank

model = models.ColBERT(".")
queries = model.encode({_QUESTION}, is_query=True, prompt_name="query")
documents = model.encode({_TEXTS}, is_query=False, prompt_name="document")
names = [["wool", "mill"]]
print(rank.rerank(documents_ids=names, queries_embeddings=queries, documents_embeddings=[documents]))
"""
    ]


def colpali(plain: Plain, adapter: bool) -> list[str]:
    name, processor, width = CLASSES[plain.family]
    base = plain.description.model.backbone
    peft = "from peft import PeftModel\n" if adapter else ""
    opened = (
        f'PeftModel.from_pretrained({name}.from_pretrained("{base}"), ".")'
        if adapter
        else f'{name}.from_pretrained(".")'
    )
    return [
        f"""import torch
from colpali_engine.models import {name}, {processor}
{peft}{_PICTURE}
model = {opened}.eval()
processor = {processor}.from_pretrained(".")
{_inputs(plain)}
    if pictures:
        inputs["pixel_values"] = inputs["pixel_values"][None]  # as its processors pad them
    return model(**inputs)[0, :, :{len(plain.multi) if plain.multi is not None else width}]


query = embed("query", "What keeps warm?")
page = embed("document", pictures=[Image.new("RGB", (448, 448), "white")])
print((query @ page.T).amax(1).mean())
"""
    ]


def transformers(plain: Plain) -> list[str]:
    return [_seeing(plain) if plain.sees_pictures else _reading(plain)]


def vllm(plain: Plain, head: str) -> list[str]:
    """Not Python: vLLM is a server."""
    if head == "single":
        return [
            f"""vllm serve . --runner pooling
curl http://localhost:8000/v1/embeddings -H 'Content-Type: application/json' \\
    -d '{{"model": ".", "input": ["What keeps warm?"], "dimensions": {plain.description.single.dims[-1]}}}'
"""
        ]
    return [
        """vllm serve . --runner pooling
curl http://localhost:8000/pooling -H 'Content-Type: application/json' \\
    -d '{"model": ".", "input": ["What keeps warm?"], "task": "token_embed"}'
"""
    ]


def onnx(plain: Plain) -> list[str]:
    query, document = (prompts_around(plain.description)[role] for role in ("query", "document"))
    model = plain.description.model
    return [
        f"""import numpy as np
import onnxruntime
from transformers import AutoTokenizer

tokenizer, session = AutoTokenizer.from_pretrained("."), onnxruntime.InferenceSession("model.onnx")


def embed(texts, limit, dim={plain.description.single.dims[0]}):
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="np")
    names = ("input_ids", "attention_mask")
    (vectors,) = session.run(None, {{name: inputs[name].astype(np.int64) for name in names}})
    vectors = vectors[:, :dim]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


queries = embed([{query[0]!r} + text + {query[1]!r} for text in {_QUESTION}], {model.max_query_tokens})
documents = embed([{document[0]!r} + text + {document[1]!r} for text in {_TEXTS}], {model.max_document_tokens})
print(queries @ documents.T)
"""
    ]


def _heads(plain: Plain, hidden: str) -> str:
    """Lines that make `single` and `multi` of one record's hidden states."""
    pooled = {"mean": "mean(0)", "last": "[-1]", "cls": "[0]"}[plain.description.single.pooling]
    taken = f"{hidden}.{pooled}" if pooled == "mean(0)" else f"{hidden}{pooled}"
    lines = []
    if plain.has_single:
        product = "" if plain.single is None else ' @ heads["single"].T'
        lines.append(f"single = normalize({taken}{product}, dim=-1)")
    if plain.multi is not None:
        lines.append(f'multi = normalize({hidden} @ heads["multi"].T, dim=-1)')
    return "\n    ".join(lines) + f"\n    return {', '.join(line.split(' ')[0] for line in lines)}"


def _reading(plain: Plain) -> str:
    model = plain.description.model
    query = prompts_around(plain.description)["query"]
    return f"""import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

model, tokenizer = AutoModel.from_pretrained(".").eval(), AutoTokenizer.from_pretrained(".")
heads = load_file("heads.safetensors")


@torch.inference_mode()
def embed(text, limit):
    inputs = tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")
    hidden = model(**inputs, use_cache=False).last_hidden_state[0].float()
    {_heads(plain, "hidden")}


print(embed({query[0]!r} + "What keeps warm?" + {query[1]!r}, {model.max_query_tokens}))
"""


def _seeing(plain: Plain) -> str:
    return f"""import torch
{_PICTURE}from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import AutoModel, AutoProcessor

model, processor = AutoModel.from_pretrained(".").eval(), AutoProcessor.from_pretrained(".")
heads = load_file("heads.safetensors")
{_inputs(plain)}
    hidden = model(**inputs, use_cache=False).last_hidden_state[0].float()
    {_heads(plain, "hidden")}


print(embed("query", "What keeps warm?"))
print(embed("document", pictures=[Image.new("RGB", (448, 448), "white")]))
"""


def _inputs(plain: Plain) -> str:
    """Lines that make a model's input of one record: the chat template takes its prompt as a system's message."""
    around = prompts_around(plain.description)
    prompts = {role: before for role, (before, _) in around.items()}
    task = "" if around["query"][1] == around["document"][1] else ", task=role"
    return f"""PROMPTS = {prompts!r}


@torch.inference_mode()
def embed(role, text="", pictures=()):
    content = [{{"type": "image"}} for _ in pictures] + [{{"type": "text", "text": text}}]
    messages = [{{"role": "system", "content": PROMPTS[role]}}, {{"role": "user", "content": content}}]
    inputs = processor(
        text=[processor.apply_chat_template(messages, tokenize=False{task})],
        images=list(pictures) or None,
        return_tensors="pt",
    )"""


def _others(dims: tuple[int, ...]) -> str:
    """A comment that names them, where there are some."""
    return f"  # or {', '.join(map(str, dims[1:]))}" if dims[1:] else ""
