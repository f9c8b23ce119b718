"""What is installed: a wheel with everything in it, and a core that imports no framework."""

import importlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FRAMEWORKS = ("tensorflow", "keras", "jax", "flax", "torchvision", "timm", "transformers")


@pytest.mark.slow
def test_the_wheel_holds_every_module(tmp_path: Path) -> None:
    # Of a copy: a folder build/ of an earlier build would go in as well.
    source = tmp_path / "source"
    for package in ("nrp_onnx", "converters/nrp_converters"):
        shutil.copytree(
            ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "-o", tmp_path, source],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("nrp_onnx-*.whl")
    files = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        path.relative_to(ROOT / where).as_posix()
        for where, package in (("", "nrp_onnx"), ("converters", "nrp_converters"))
        for path in (ROOT / where / package).rglob("*.py")
    }
    data = {"nrp_onnx/py.typed", "nrp_converters/py.typed", "nrp_onnx/recordings/registry.toml"}
    data |= {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "nrp_onnx/report/templates").iterdir()
    }
    assert {name for name in files if name.endswith(".py")} == modules
    assert data <= files
    metadata = next(name for name in files if name.endswith("entry_points.txt"))
    assert "nrp-onnx = nrp_onnx.cli.app:main" in zipfile.ZipFile(wheel).read(metadata).decode()


@pytest.mark.slow
def test_core_modules_import_no_framework_that_they_convert_from() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "nrp_onnx").rglob("*.py"))
        if path.name != "__main__.py"
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print([name for name in {FRAMEWORKS!r} if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"


def test_every_room_says_what_it_is_for_and_what_it_exports() -> None:
    packages = [
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in sorted((ROOT / "nrp_onnx").rglob("__init__.py"))
    ]
    assert len(packages) > 10
    for name in packages:
        package = importlib.import_module(name)
        assert (package.__doc__ or "").strip(), name
        assert set(package.__all__) <= set(dir(package)), name
        for exported in package.__all__:
            assert getattr(package, exported) is not None, f"{name}.{exported}"


@pytest.mark.slow
def test_types_of_converters_are_seen(tmp_path: Path) -> None:
    """From a file outside of the source tree too, as an editor of a user checks one."""
    file = tmp_path / "uses.py"
    file.write_text(
        "from nrp_converters.convert import convert\nimport nrp_onnx\n"
        "reveal_type(convert)\nreveal_type(nrp_onnx.convert)\nreveal_type(nrp_onnx.score)\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", file],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    revealed = [line for line in run.stdout.splitlines() if "Revealed type" in line]
    assert len(revealed) == 3, run.stdout + run.stderr
    assert "-> nrp_converters.converted_model.ConvertedModel" in revealed[0]
    assert "-> nrp_converters.converted_model.ConvertedModel" in revealed[1]
    assert "-> nrp_onnx.api.Run" in revealed[2]
