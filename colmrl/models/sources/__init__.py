"""Models of other libraries, read as what they are. One small file a kind of folder, each with

    read(folder: Path) -> Source | None     # None: it is not of this kind; InputError: it is, and cannot be read

No code from a folder is run, no pickle is loaded.
"""

import re
from pathlib import Path

from colmrl.errors import InputError
from colmrl.models.description import Description, is_own, read_own
from colmrl.models.sources import bare, colpali, instructed, sentence_transformers
from colmrl.models.sources.source import Source, refuse_remote_code

# In the order that they are tried: an adapter's folder and a module list say more than a bare config.json.
KINDS = (colpali, sentence_transformers, instructed, bare)
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_LOOKED_FOR = (
    "colmrl.json, modules.json (sentence-transformers, PyLate), adapter_config.json (colpali-engine), config.json"
)
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*"]
_UNWANTED = ["onnx/*", "openvino/*"]


def located(name: str | Path) -> Path:
    """The folder of that name, or of the hub's model of that name, downloaded once."""
    path = Path(name)
    if str(name) and path.is_dir():
        return path
    if path.exists() or not _HUB_ID.fullmatch(str(name)):
        what = "no name" if not str(name) else "a file" if path.exists() else "no such folder"
        raise InputError(f"{name}: not a colmrl checkpoint ({what}): give a folder, or a hub id (owner/name)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(name), allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        unreached = "ConnectError" in reason or "ConnectTimeout" in reason or "offline" in reason.lower()
        hub = "the hub cannot be reached" if unreached else "the hub does not give it"
        raise InputError(
            f"{name}: no such folder here, and {hub} ({reason}): give a folder, or a hub id (owner/name)"
        ) from None


def find_source(folder: Path) -> Source:
    """Another library's model. Raises InputError where there is none, or it cannot be read."""
    refuse_remote_code(folder)
    for kind in KINDS:
        if source := kind.read(folder):
            return source
    if (folder / "checkpoint").is_dir():
        raise InputError(f"{folder}: not a colmrl checkpoint, but the run of one: give {folder / 'checkpoint'}")
    raise InputError(
        f"{folder}: not a colmrl checkpoint (no colmrl.json), nor another model that can be started from (looked for "
        f"{_LOOKED_FOR}): give the OUTPUT/checkpoint of train.py, or a model's folder"
    )


def read_description(folder: str | Path) -> Description:
    """What a checkpoint is: ours, or another library's, read as what it is. Raises InputError where it is none."""
    folder = located(folder)
    return read_own(folder) if is_own(folder) else find_source(folder).description
