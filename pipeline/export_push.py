"""`instructmill export --push`: a finished folder to a data set repository of the Hugging Face Hub.

The token is that of the environment (`HF_TOKEN`); it goes into no file and no sentence. `HF_ENDPOINT` names another
hub.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from pipeline.errors import InputError, RunStopped
from pipeline.export_folder import DATA

_TOKEN = "HF_TOKEN"
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]{0,95}")


def require_pushable(repo: str) -> None:
    """Raises InputError where a push could not even begin: before any row is written."""
    if not _REPO.fullmatch(repo):
        raise InputError(f"--push {repo}: a data set of the hub is named OWNER/NAME; give it in this form")
    try:
        import huggingface_hub  # noqa: F401 -- its parts may be loaded where it is not
        from huggingface_hub.utils import HFValidationError, validate_repo_id
    except ImportError:
        raise InputError("--push needs the package huggingface_hub, which is not installed; install it") from None
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"--push {repo}: the hub takes no such name ({error})") from None
    if not os.environ.get(_TOKEN):
        raise InputError(f"--push needs a token that may write to {repo}: put it in the environment as {_TOKEN}")


def push_folder(folder: Path, repo: str, *, public: bool, message: str) -> str:
    """Send a folder in one commit, in place of `data/` and README.md there; returns the address of the repository.

    A repository that is not there yet is made, private unless `public`. Raises InputError where the hub refuses or
    cannot be reached, RunStopped where somebody interrupts; the folder stays.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    api = HfApi(token=os.environ[_TOKEN])
    try:
        made = api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True)
        # Shards of an earlier push have other names where there were more or fewer of them.
        api.upload_folder(
            repo_id=repo, repo_type="dataset", folder_path=folder, commit_message=message, delete_patterns=f"{DATA}/*"
        )
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no")
        raise InputError(_stays(folder, repo, f"the hub refuses it (status {status})", public)) from None
    except (HTTPError, OSError) as error:
        raise InputError(_stays(folder, repo, f"the hub cannot be reached ({type(error).__name__})", public)) from None
    except KeyboardInterrupt:
        raise RunStopped(_stays(folder, repo, "interrupted", public)) from None
    return str(made)


def _stays(folder: Path, repo: str, why: str, public: bool) -> str:
    private = "" if public else " --private"
    return (
        f"--push {repo}: {why}; {folder} is whole and stays: see to the token and the network, "
        f"then `hf upload {repo} {shlex.quote(str(folder))} . --repo-type dataset{private} --delete '{DATA}/*'`"
    )
