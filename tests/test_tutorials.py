"""The tutorials run from top to bottom, and the page of troubles quotes what the program says."""

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command_line import Finished, nrp_onnx

ROOT = Path(__file__).parents[1]
#: In this order: the second takes the backbone of the first.
TUTORIALS = ("tutorial-torch", "tutorial-recordings", "tutorial-keras")
_STEPS = re.compile(
    r"^```python\n(?P<python>.*?)^```$|^    (?P<command>nrp-onnx .*?)$", re.M | re.S
)


def steps(page: str) -> Iterator[tuple[str, str]]:
    """Blocks of Python and commands in the order of the page: what it is, and its text."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").replace("\\\n", " ")
    for found in _STEPS.finditer(text):
        yield ("python", found["python"]) if found["python"] else ("command", found["command"])


def follow(page: str, folder: Path) -> None:
    """Do as a reader does; a block that begins with a file's name is saved as that file."""
    for kind, text in steps(page):
        if kind == "command":
            run: Finished | subprocess.CompletedProcess[str]
            run = nrp_onnx(*shlex.split(text)[1:], cwd=folder)
        elif named := re.match(r"# (\w+\.py)\n", text):
            (folder / named[1]).write_text(text)
            continue
        else:
            run = subprocess.run(
                [sys.executable, "-c", text], cwd=folder, capture_output=True, text=True,
                check=False, timeout=600,
            )  # fmt: skip
        assert run.returncode == 0, f"{text}\n{run.stderr}"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tutorials")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS)
def test_a_tutorial_runs(page: str, desk: Path) -> None:
    assert {kind for kind, _ in steps(page)} == {"python", "command"}
    if page == "tutorial-recordings" and not (desk / "network.onnx").exists():
        follow("tutorial-torch", desk)
    follow(page, desk)
    run = {"tutorial-torch": "network", "tutorial-recordings": "my_lab"}.get(page, "keras")
    assert "SIMULATED" in (desk / "runs" / run / "report.html").read_text(encoding="utf-8")


def test_every_tutorial_is_run() -> None:
    assert sorted(TUTORIALS) == sorted(of.stem for of in (ROOT / "docs").glob("tutorial-*.md"))


def _messages() -> str:
    """All texts of the sources: literals joined as Python joins them, gaps of f-strings as {}."""
    texts = []
    for path in [*(ROOT / "nrp_onnx").rglob("*.py"), *(ROOT / "converters").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = node.values
                texts.append(
                    "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in parts)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def test_messages_that_the_page_of_troubles_quotes_are_those_of_the_program() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `(.+?)` \|", page, re.MULTILINE)
    assert len(quoted) >= 15
    known = _messages()
    assert [message for message in quoted if message not in known] == []
