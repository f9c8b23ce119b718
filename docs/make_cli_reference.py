"""Writes docs/cli.md, the reference of the command line, from the commands themselves.

`make docs` runs it; a test fails where the page is not what this script would write.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from nrp_onnx.cli.app import app

PAGE = Path(__file__).with_name("cli.md")
_HEAD = """# Command line

Made from the commands by `make docs`: change their help, not this page. Each command says the same with
`--help`. Results go to stdout, progress and notes to stderr. The exit code is 0 on success, and 2 with one
line on what to do where something that was given is wrong. `--fail-above` and `--fail-if-worse` exit with 1, after
a line on stderr for each region that fails: [examples/ci](../examples/ci/README.md).
"""


def cli_reference() -> str:
    """The page as Markdown: a section a command, in the order of `nrp-onnx --help`."""
    commands = list(_commands(typer.main.get_command(app), "nrp-onnx"))
    contents = "\n".join(
        f"- [{name}](#{name.replace(' ', '-')}): {_paragraphs(command)[0]}"
        for name, command in commands
    )
    sections = [_section(name, command) for name, command in commands]
    return "\n".join([_HEAD, contents, "", *sections])


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _section(name: str, command: Any) -> str:
    what, *examples = _paragraphs(command)
    lines = [f"## {name}", "", what, ""]
    lines += [f"    {example.removeprefix('Example: ')}" for example in examples]
    lines += ["", "| option | what | default |", "|---|---|---|"]
    lines += [_row(parameter) for parameter in command.params]
    return "\n".join(lines) + "\n"


def _paragraphs(command: Any) -> list[str]:
    return [" ".join(text.split()) for text in command.help.split("\n\n")]


def _row(parameter: Any) -> str:
    names = parameter.opts + parameter.secondary_opts
    if not names[0].startswith("-"):
        names = [parameter.metavar or parameter.name.upper()]
    what, _, told = (parameter.help or "").replace("|", "\\|").partition("[default: ")
    default = told.removesuffix("]") or _default(parameter)
    return f"| {', '.join(f'`{name}`' for name in names)} | {what.strip()} | {default} |"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if parameter.default is None or parameter.default is False:
        return ""
    if parameter.default is True:
        return f"`{parameter.opts[0]}`"
    return f"`{parameter.default}`"


if __name__ == "__main__":
    PAGE.write_text(cli_reference(), encoding="utf-8")
