"""The options that say how a file becomes a data set: those of `DataConfig`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import click

from pymlp import sources
from pymlp.data import DataConfig, Dataset
from pymlp.loading import load
from pymlp.presets import PRESETS, Preset
from pymlp.text import Input, open_input
from pymlp.token_file import is_token_file

F = TypeVar("F", bound=Callable[..., Any])

_FILES = {
    "dev": "Text of the dev split, where it is a file of its own; --data is train.",
    "test": "The same for the test split, which is empty without it.",
}

# The type is None for a flag.
_VOCABULARY: dict[str, tuple[Any, str]] = {
    "tokens": (
        click.Choice(["char", "word"]),
        "Characters, or the words that white space separates, one sentence a line.",
    ),
    "lowercase": (None, "Put the text into lower case."),
    "min_count": (
        click.IntRange(min=1),
        "Words met less often become <unk>; more than 3 times is 4.",
    ),
    "vocab_size": (
        click.IntRange(min=2),
        "Keep the most frequent words: so many tokens with </s> and <unk>.",
    ),
}
_SPLITTING: dict[str, tuple[Any, str]] = {
    "vocab_from": (
        click.Choice(["all", "train"]),
        "Count the words of the whole text, as Bengio et al. did, or of train.",
    ),
    "split": (
        str,
        "lines shuffles the lines and cuts them at 80% and 90%, three shares such as 0.9,0.1,0 do "
        "so elsewhere. Three numbers such as 800000,200000,rest cut the text as it stands into so "
        "many tokens.",
    ),
    "context": (
        click.Choice(["reset", "across"]),
        "Whether a context begins with its line or runs on from the lines before.",
    ),
}

# The defaults that the help shows.
_DEFAULTS = {
    "tokens": "char",
    "min_count": "1",
    "vocab_size": "all",
    "vocab_from": "all",
    "split": "lines",
    "context": "across for words cut as they stand, else reset",
}
_OF_A_TOKEN_FILE = {"tokens": "char, or what a token file holds"}


class OnceOption(click.Option):
    """An option that is wrong usage where it is given twice: click would take the last one."""

    def __init__(self, *declarations: Any, callback: Any = None, **settings: Any) -> None:
        def only(ctx: click.Context, parameter: click.Parameter, values: tuple[Any, ...]) -> Any:
            if len(values or ()) > 1:
                shown = " and ".join(map(str, values))
                raise click.UsageError(
                    f"{parameter.opts[-1]} is given {len(values)} times: {shown}"
                )
            value = values[0] if values else None
            return value if callback is None else callback(ctx, parameter, value)

        if "default" in settings:
            settings["default"] = [settings["default"]]
        super().__init__(*declarations, **settings | {"multiple": True, "callback": only})


# A file, a pipe, or - for standard input, which are opened once, by `opened`.
READABLE = click.Path(exists=True, dir_okay=False, allow_dash=True)


def source_option(text: str, **settings: Any) -> Callable[[F], F]:
    """The option ``--data``, parameter ``source``."""
    return click.option(
        "--data", "source", cls=OnceOption, help=text, **{"type": READABLE} | settings
    )


def file_options(command: F) -> F:
    """Files of their own for dev and test."""
    for name, text in reversed(_FILES.items()):
        command = click.option(f"--{name}", cls=OnceOption, type=READABLE, help=text)(command)
    return command


@contextmanager
def opened(source: str) -> Iterator[Input]:
    """The file ``source``, or for ``-`` standard input.

    Raises:
        click.ClickException: standard input is closed.
    """
    if source != "-":
        with open_input(source) as file:
            yield file
    elif sys.stdin is None:
        raise click.ClickException("standard input is closed: name a file, or send lines by a pipe")
    else:
        yield Input(sys.stdin.buffer, "standard input")


def vocabulary_options(command: F) -> F:
    """The options of preparing a text; each parameter is None where it is not given."""
    return _add(command, _VOCABULARY, _DEFAULTS, {})


def data_options(command: F) -> F:
    """All of them; presets may have other defaults."""
    return _add(command, _VOCABULARY | _SPLITTING, _DEFAULTS | _OF_A_TOKEN_FILE, PRESETS)


def load_data(
    source: str | None, preset: Mapping[str, Any], chosen: Mapping[str, Any], block_size: int = 3
) -> Dataset:
    """The data set of ``--data``, read as a preset and the options say.

    Args:
        source: a path, ``-``, or None for the bundled names.
        preset: fields of a `DataConfig`.
        chosen: the options that were given, among them those of files for dev and test.
        block_size: length T of the contexts.
    """
    if "-" in (others := [chosen[name] for name in _FILES if name in chosen]) and source == "-":
        raise click.UsageError("standard input can be read once: give files for the others")
    if source is None:
        if others:
            raise click.UsageError("--dev and --test need --data, which is train")
        return sources.load(sources.BUNDLED, block_size, _config(False, preset, chosen))
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(opened(chosen[name])) for name in _FILES if name in chosen
        }
        file = stack.enter_context(opened(source))
        return load(file, block_size, _config(is_token_file(file), preset, chosen), **files)


def _config(is_prepared: bool, preset: Mapping[str, Any], chosen: Mapping[str, Any]) -> DataConfig:
    """The configuration of a preset with what was chosen; what is wrong with it is wrong usage.

    A token file has decided about its vocabulary. What a preset says of words does not hold for
    characters.
    """
    known = _VOCABULARY | _SPLITTING
    if "tokens" in preset and chosen.get("tokens", preset["tokens"]) != preset["tokens"]:
        preset = {}
    if is_prepared:
        preset = {name: value for name, value in preset.items() if name not in _VOCABULARY}
    settings = {name: chosen[name] for name in known if name in chosen}
    try:
        return DataConfig(**{**preset, **settings})
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _add(
    command: F,
    options: Mapping[str, tuple[Any, str]],
    defaults: Mapping[str, str],
    presets: Mapping[str, Preset],
) -> F:
    for name, (kind, text) in reversed(list(options.items())):
        flag = "--" + name.replace("_", "-")
        if kind is None:
            command = click.option(flag, is_flag=True, default=None, help=text)(command)
            continue
        others = [f"{p.data[name]} for {preset}" for preset, p in presets.items() if name in p.data]
        text = f"{text}  [default: {'; '.join([defaults[name], *others])}]"
        command = click.option(flag, cls=OnceOption, type=kind, help=text)(command)
    return command
