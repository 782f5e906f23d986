"""The quickstart of transformers' documentation, run unchanged on an exported folder by a stranger's Python.

The process is started with `-I` (no PYTHONPATH, no user site) and refuses to import this project, so what passes
here passes on any machine that has transformers and accelerate.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from qwenops.errors import StageError

SCRIPT = """from transformers import AutoModelForCausalLM, AutoTokenizer

model_name = {name}
model = AutoModelForCausalLM.from_pretrained(model_name, torch_dtype="auto", device_map="auto")
tokenizer = AutoTokenizer.from_pretrained(model_name)

prompt = {prompt}
messages = [
    {{"role": "system", "content": "You are a helpful assistant."}},
    {{"role": "user", "content": prompt}},
]
text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
model_inputs = tokenizer([text], return_tensors="pt").to(model.device)
generated_ids = model.generate(**model_inputs, max_new_tokens={new_tokens})
generated_ids = [
    output_ids[len(input_ids):] for input_ids, output_ids in zip(model_inputs.input_ids, generated_ids)
]
response = tokenizer.batch_decode(generated_ids, skip_special_tokens=True)[0]
"""

# `None` in sys.modules makes an import fail: the project may be installed in this very environment.
_BORDER = "import sys, json, warnings; sys.modules['qwenops'] = sys.modules['qwenops_pipelines'] = None\n"
_ANSWER = "print(json.dumps({'text': text, 'response': response, 'tokens': len(generated_ids[0])}))\n"


@dataclass(frozen=True)
class Answer:
    """What the quickstart printed.

    Attributes:
        text: The rendered prompt.
        response: The decoded answer.
        tokens: Tokens of the answer, the end of turn included.
    """

    text: str
    response: str
    tokens: int


def script(name: str, prompt: str, new_tokens: int) -> str:
    """The quickstart's text for a model folder or hub name."""
    return SCRIPT.format(name=json.dumps(name), prompt=json.dumps(prompt), new_tokens=new_tokens)


def run_quickstart(folder: Path, prompt: str, new_tokens: int, timeout_seconds: int) -> Answer:
    """Run the quickstart on `folder` in a fresh interpreter.

    Raises:
        StageError: it failed or did not end in time; the message holds the end of its output.
    """
    code = _BORDER + script(str(folder), prompt, new_tokens) + _ANSWER
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", code],
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(folder, f"no answer after {timeout_seconds} seconds") from error
    if done.returncode != 0:
        raise _failed(folder, done.stderr.strip()[-1500:])
    return Answer(**json.loads(done.stdout.strip().splitlines()[-1]))


def _failed(folder: Path, found: str) -> StageError:
    return StageError(
        "the transformers quickstart does not run on the exported model",
        expected="an answer",
        found=found,
        action=f"load {folder} by hand; `pip install accelerate` if that is what is missing",
    )
