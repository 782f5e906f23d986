"""Read official benchmark files into `EvalItem`s.

One reader per file format. The prompt wording is the one each benchmark published with its own code (it lies
in `evalset_templates.json`, since some of it is Chinese); the Qwen2 report gives shots and metrics but not
its wording, so this is a house choice.
"""

import csv
import gzip
import json
import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from qwenops.errors import ContractError
from qwenops.tasks.code_answers import defined_names
from qwenops.tasks.evalitem import EvalItem

Split = Literal["test", "shots"]
Reader = Callable[[Path, Split], Iterator[EvalItem]]

_LETTERS = "ABCDEFGHIJ"
_TEMPLATES: dict[str, dict[str, str]] = json.loads(
    files("qwenops.tasks").joinpath("evalset_templates.json").read_text(encoding="utf-8")
)
_BOXED = r"\boxed"


def read_mmlu(folder: Path, split: Split) -> Iterator[EvalItem]:
    """MMLU: `test/<subject>_test.csv` and `dev/<subject>_dev.csv`, six columns, no header line."""
    part = {"test": "test", "shots": "dev"}[split]
    for path in _need(folder, f"{part}/*_{part}.csv"):
        subject = path.stem.removesuffix(f"_{part}")
        for number, cells in enumerate(_csv_cells(path, columns=6)):
            yield _letter_item("mmlu", subject, number, cells[0], cells[1:5], cells[5], "en")


def read_ceval(folder: Path, split: Split) -> Iterator[EvalItem]:
    """C-Eval: `val/<subject>_val.csv` (its test answers are not public) and `dev/<subject>_dev.csv`."""
    part = {"test": "val", "shots": "dev"}[split]
    for path in _need(folder, f"{part}/*_{part}.csv"):
        subject = path.stem.removesuffix(f"_{part}")
        for number, row in enumerate(_csv_rows(path)):
            options = [row[letter] for letter in "ABCD"]
            yield _letter_item("ceval", subject, number, row["question"], options, row["answer"], "zh")


def read_cmmlu(folder: Path, split: Split) -> Iterator[EvalItem]:
    """CMMLU: `test/<subject>.csv` and `dev/<subject>.csv`."""
    part = {"test": "test", "shots": "dev"}[split]
    for path in _need(folder, f"{part}/*.csv"):
        for number, row in enumerate(_csv_rows(path)):
            options = [row[letter] for letter in "ABCD"]
            yield _letter_item("cmmlu", path.stem, number, row["Question"], options, row["Answer"], "zh")


def read_mmmlu(folder: Path, split: Split) -> Iterator[EvalItem]:
    """M-MMLU: `mmlu_<LOCALE>.csv`; the first five items of a subject are the shots, the others the test."""
    for path in _need(folder, "mmlu_*.csv"):
        lang, seen = path.stem.removeprefix("mmlu_").split("-")[0].lower(), dict[str, int]()
        for number, row in enumerate(_csv_rows(path)):
            seen[row["Subject"]] = seen.get(row["Subject"], 0) + 1
            if (seen[row["Subject"]] <= 5) == (split == "shots"):
                options = [row[letter] for letter in "ABCD"]
                subject = f"{lang}/{row['Subject']}"
                yield _letter_item("mmmlu", subject, number, row["Question"], options, row["Answer"], lang)


def read_gsm8k(folder: Path, split: Split) -> Iterator[EvalItem]:
    """GSM8K: `test.jsonl` and `train*.jsonl` with question and answer, the number after "####"."""
    for path in _need(folder, {"test": "test.jsonl", "shots": "train*.jsonl"}[split])[:1]:
        for number, row in enumerate(_jsonl(path)):
            solution = re.sub(r"<<[^>]*>>", "", row["answer"])
            yield EvalItem(
                id=f"gsm8k/{number}",
                task="gsm8k",
                subject="gsm8k",
                prompt=_ask("gsm8k", row["question"]),
                text=f"{row['question']}\n{solution}",
                # The file notes each calculation between << and >>, and copies keep or drop the notes.
                parts=(("question", row["question"]), ("answer", solution), ("answer", row["answer"])),
                scorer="number",
                gold=row["answer"].split("####")[-1].strip().replace(",", ""),
                target=" " + solution,
            )


def read_mgsm(folder: Path, split: Split) -> Iterator[EvalItem]:
    """MGSM: `mgsm_<lang>.tsv` with question and number; the first eight are used as shots only."""
    for path in _need(folder, "mgsm_*.tsv"):
        lang = path.stem.removeprefix("mgsm_")
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if (number < 8) == (split == "shots"):
                question, _, answer = line.rpartition("\t")
                yield EvalItem(
                    id=f"mgsm/{lang}/{number}",
                    task="mgsm",
                    subject=lang,
                    prompt=_ask("mgsm", question),
                    text=question,
                    scorer="number",
                    gold=answer.strip().replace(",", ""),
                    target=" " + answer.strip(),
                    lang=lang,
                )


def read_math(folder: Path, split: Split) -> Iterator[EvalItem]:
    """MATH: `test/<type>/<n>.json` and `train/...`, or one `*.jsonl` with the same fields (test only)."""
    part = {"test": "test", "shots": "train"}[split]
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"{part}/*/*.json"))]
    if not rows and split == "test":
        rows = [row for path in _need(folder, "math*.jsonl") for row in _jsonl(path)]
    for number, row in enumerate(rows):
        yield EvalItem(
            id=f"math/{number}",
            task="math",
            subject=row["type"],
            prompt=_ask("math", row["problem"]),
            text=f"{row['problem']}\n{row['solution']}",
            parts=(("question", row["problem"]), ("answer", row["solution"])),
            scorer="math",
            gold=last_boxed(row["solution"]),
            target="\n" + row["solution"],
        )


def read_humaneval(folder: Path, split: Split) -> Iterator[EvalItem]:
    """HumanEval: `HumanEval.jsonl` or `HumanEval.jsonl.gz`; zero-shot, so it has no shots."""
    if split == "shots":
        return
    for row in _jsonl(_need(folder, "HumanEval.jsonl*")[0]):
        yield EvalItem(
            id=f"humaneval/{row['task_id'].split('/')[-1]}",
            task="humaneval",
            subject="python",
            prompt=row["prompt"],
            text=row["prompt"] + row["canonical_solution"],
            parts=(("question", row["prompt"]), ("answer", row["canonical_solution"])),
            scorer="python",
            target=row["canonical_solution"],
            facts={
                "prefix": row["prompt"],
                "tests": f"{row['test']}\ncheck({row['entry_point']})\n",
                "names": [row["entry_point"]],
            },
        )


def read_mbpp(folder: Path, split: Split) -> Iterator[EvalItem]:
    """MBPP: `mbpp.jsonl`; task ids 11 to 510 are the test, 2 to 4 the prompt examples of its paper."""
    wanted = {"test": range(11, 511), "shots": range(2, 5)}[split]
    for row in _jsonl(_need(folder, "mbpp.jsonl")[0]):
        if row["task_id"] in wanted:
            code, tests = row["code"].replace("\r\n", "\n"), "\n".join(row["test_list"])
            yield EvalItem(
                id=f"mbpp/{row['task_id']}",
                task="mbpp",
                subject="python",
                prompt=_ask("mbpp", row["text"], tests=tests),
                text=f"{row['text']}\n{code}",
                parts=(("question", row["text"]), ("answer", code)),
                scorer="python",
                target=code + "\n[DONE]",
                # What the tests take from the program: names of the reference, one of which is a builtin's.
                facts={
                    "prefix": "",
                    "tests": f"{row['test_setup_code']}\n{tests}\n",
                    "names": sorted(defined_names(code) & set(re.findall(r"\w+", tests))),
                },
            )


def read_bbh(folder: Path, split: Split) -> Iterator[EvalItem]:
    """BBH: `<task>.json`, with the three worked examples of `cot-prompts/<task>.txt` as header."""
    if split == "shots":
        return
    for path in _need(folder, "*.json"):
        cot = _cot_prompt(folder, path.stem)
        for number, row in enumerate(json.loads(path.read_text(encoding="utf-8"))["examples"]):
            yield EvalItem(
                id=f"bbh/{path.stem}/{number}",
                task="bbh",
                subject=path.stem,
                prompt=_ask("bbh", row["input"]),
                text=row["input"],
                scorer="exact",
                gold=row["target"].strip(),
                header=_TEMPLATES["bbh"]["header"].format(cot=cot) if cot else "",
            )


def read_ifeval(folder: Path, split: Split) -> Iterator[EvalItem]:
    """IFEval: `*.jsonl` with prompt, instruction_id_list and kwargs; rows without kwargs cannot be verified."""
    if split == "shots":
        return
    for path in _need(folder, "*.jsonl"):
        for number, row in enumerate(_jsonl(path)):
            if "kwargs" in row:
                checks = list(zip(row["instruction_id_list"], row["kwargs"], strict=True))
                yield EvalItem(
                    id=f"ifeval/{path.stem}/{number}",
                    task="ifeval",
                    subject=row["instruction_id_list"][0].split(":")[0],
                    prompt=row["prompt"],
                    text=row["prompt"],
                    scorer="ifeval",
                    facts={"checks": checks, "prompt": row["prompt"]},
                )


def last_boxed(solution: str) -> str:
    r"""The content of the last `\boxed{...}` of a MATH solution, braces balanced; empty when there is none."""
    start = solution.rfind(_BOXED)
    if start < 0:
        return ""
    rest = solution[start + len(_BOXED) :].lstrip()
    if not rest.startswith("{"):
        return rest.split("$")[0].strip()
    depth = 0
    for place, letter in enumerate(rest):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return rest[1:place].strip()
    return ""


def _letter_item(
    task: str, subject: str, number: int, question: str, options: list[str], letter: str, lang: str
) -> EvalItem:
    template = _TEMPLATES[task]
    letters = _LETTERS[: len(options)]
    lines = [f"{name}. {option}" for name, option in zip(letters, options, strict=True)]
    continuations = tuple(template["option"].format(letter=name) for name in letters)
    gold = letters.index(letter.strip())
    return EvalItem(
        id=f"{task}/{subject}/{number}",
        task=task,
        subject=subject,
        prompt="\n".join([template["question"].format(question=question), *lines, template["answer"]]),
        text="\n".join([question, *options]),
        parts=(("question", question), ("whole", "\n".join([question, *lines]))),
        scorer="choice",
        gold=str(gold),
        target=continuations[gold],
        options=continuations,
        header=template["header"].format(subject=subject.replace("_", " ")),
        lang=lang,
    )


def _ask(task: str, question: str, **more: str) -> str:
    template = _TEMPLATES[task]
    return template["question"].format(question=question, **more) + "\n" + template["answer"]


def _cot_prompt(folder: Path, task: str) -> str:
    for name in ("cot-prompts", "cot_prompts"):
        path = folder / name / f"{task}.txt"
        if path.exists():
            # The published files open with a canary line and a rule that are not part of the prompt.
            return path.read_text(encoding="utf-8").split("-----\n", 1)[-1].strip()
    return ""


def _need(folder: Path, pattern: str) -> list[Path]:
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise ContractError(
            f"no evaluation files in {folder}",
            expected=pattern,
            found=f"{len(list(folder.glob('*')))} other entries",
            action="point the folder at an unpacked copy of the official data, or leave the set out",
        )
    return paths


def _csv_cells(path: Path, columns: int) -> Iterator[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for number, cells in enumerate(csv.reader(stream)):
            if len(cells) != columns:
                raise ContractError(
                    f"{path} row {number}", expected=f"{columns} columns", found=len(cells), action="replace the file"
                )
            yield cells


def _csv_rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        yield from csv.DictReader(stream)


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as stream:
        for number, line in enumerate(stream):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ContractError(
                        f"{path} line {number + 1}", expected="one JSON object", found=error, action="replace the file"
                    ) from None


READERS: dict[str, Reader] = {
    "mmlu": read_mmlu,
    "ceval": read_ceval,
    "cmmlu": read_cmmlu,
    "mmmlu": read_mmmlu,
    "gsm8k": read_gsm8k,
    "mgsm": read_mgsm,
    "math": read_math,
    "humaneval": read_humaneval,
    "mbpp": read_mbpp,
    "bbh": read_bbh,
    "ifeval": read_ifeval,
}
