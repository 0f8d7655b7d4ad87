"""Exported folders on the Hugging Face hub, or on what HF_ENDPOINT names in its place."""

from __future__ import annotations

import os
from pathlib import Path

import httpx2
from huggingface_hub import HfApi

from thinkrec.errors import UserError


def upload(folder: Path, repo: str, kind: str, *, public: bool) -> str:
    """Upload a folder to a repository (model, dataset), made private if new and not `public`; returns its address.

    Raises:
        UserError: the hub cannot be reached, or refuses the token, the name or a file.
    """
    hub = HfApi(token=os.environ["HF_TOKEN"])
    try:
        address = hub.create_repo(repo, repo_type=kind, private=not public, exist_ok=True)
        if not public and not hub.repo_info(address.repo_id, repo_type=kind).private:
            raise UserError(f"{repo}: is public already; add --public if all may read what you put there")
        hub.upload_folder(repo_id=address.repo_id, repo_type=kind, folder_path=folder, commit_message="thinkrec push")
    except (httpx2.HTTPError, ValueError, OSError) as error:
        message = " ".join(str(error).split()).replace(os.environ["HF_TOKEN"], "***")
        raise UserError(f"{repo}: the hub at {hub.endpoint} did not take it ({message[:300]})") from None
    return str(address)
