"""An export to the hub: what would go there, and, where that is confirmed, that."""

from pathlib import Path

from colmrl.errors import InputError


def check_repo(repo: str) -> None:
    """Raise an InputError where `repo` cannot be a repository's name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"--push {repo!r}: {str(error).rstrip('.')}: give owner/name") from None


def files_of(folder: Path) -> list[tuple[str, int]]:
    """Path and bytes of each file, in order."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(path.relative_to(folder)), path.stat().st_size) for path in files]


def push(folder: Path, repo: str) -> str:
    """Upload the folder into `repo`, which is made, private, where there is none. Returns its address."""
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = HfApi()
    try:
        api.create_repo(repo, private=True, exist_ok=True)
        done = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Export of colmrl")
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, HTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"--push {repo}: {reason}: check the name, `hf auth login` and the network") from None
    return str(done)
