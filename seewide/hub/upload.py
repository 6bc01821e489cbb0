"""Upload a model folder to the hub."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError
from .folder import CONFIG, WEIGHTS


def push_to_hub(
    folder: str | os.PathLike,
    repository: str,
    private: bool = False,
    message: str = "Upload a model of seewide",
) -> str:
    """Create the repository if it does not exist, and upload the files; returns its address.

    Args:
        folder: of `save_pretrained`; all files in it are uploaded but hidden ones.
        repository: `OWNER/NAME`.
        private: whether a new repository is private.

    The access token is the hub's own: `hf auth login`, or the variable HF_TOKEN.

    Raises:
        InputError: no such folder, no connection, or no right to write there.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder} is no model folder: it has no {name}; see save_pretrained")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(library_name="seewide")
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=message, ignore_patterns=".*"
        )
        return str(url)
    except HFValidationError as error:
        raise InputError(f"{repository!r} is no name of a repository: {_line(error)}") from None
    except HfHubHTTPError as error:
        raise InputError(
            f"the hub refused the upload to {repository}: {_line(error)}; is the token one that "
            "may write there (hf auth login)?"
        ) from None
    except Exception as error:  # the client has its own HTTP library, whose errors pass through
        raise InputError(f"{repository} could not be uploaded: {_line(error)}") from None


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
