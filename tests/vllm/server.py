"""A real vLLM server on the CPU in a process group of its own, with the embedded model and a chat template."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

CONTEXT = 2048
KEY, VARIABLE = "a-throw-away-key", "TEST_VLLM_KEY"
NAME = "embedded-chat"
# As many real templates do, it writes the beginning-of-text token itself.
START = "<|end|>"
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"


def make_chat_model(model_folder: Path, folder: Path) -> Path:
    """The embedded model with a chat template and a beginning-of-text token that its tokenizer adds to every text."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    shutil.copytree(model_folder, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    first = (START, tokenizer.token_to_id(START))
    tokenizer.post_processor = TemplateProcessing(single=f"{START} $A", special_tokens=[first])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": START}), encoding="utf-8")
    return folder


def serve(chat_model: Path, log: Path) -> Iterator[tuple[str, str]]:
    """The address and the model's name of a server that wants a key; its process group ends with the generator."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "--model": str(chat_model),
        "--served-model-name": NAME,
        "--host": "127.0.0.1",
        "--port": str(port),
        "--max-model-len": str(CONTEXT),
        "--max-num-seqs": "16",
        "--kv-cache-memory-bytes": str(2**28),
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_CPU_CI_ENV": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(
            command + [word for pair in options.items() for word in pair],
            env={**os.environ, **quiet, "VLLM_API_KEY": KEY},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_up(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1", NAME
    finally:
        end_group(process)


def wait_until_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Fails with the end of the server's log when it ends, or does not answer within three minutes."""
    last = time.monotonic() + 180
    plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while process.poll() is None and time.monotonic() < last:
        try:
            with plain.open(url, timeout=5):
                return
        except OSError:
            time.sleep(0.25)
    pytest.fail(f"the server did not come up (exit status {process.poll()}):\n{log.read_text()[-6000:]}")


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and the engine process it started, which are a process group of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(20)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
