"""The options that say how a file becomes a data set: those of `DataConfig`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from pymlp.data import DataConfig
from pymlp.presets import PRESETS, Preset
from pymlp.token_file import is_token_file

F = TypeVar("F", bound=Callable[..., Any])

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
        "lines shuffles the lines and cuts them at 80% and 90%. Three numbers such as "
        "800000,200000,rest cut the text as it stands into so many tokens.",
    ),
    "context": (
        click.Choice(["reset", "across"]),
        "Whether a context begins with its line or runs on from the lines before.",
    ),
}

# Where nothing is said.
_DEFAULTS = {
    "tokens": "char",
    "min_count": "1",
    "vocab_size": "all",
    "vocab_from": "all",
    "split": "lines",
    "context": "across for words cut as they stand, else reset",
}
_OF_A_TOKEN_FILE = {"tokens": "char, or what a token file holds"}


def vocabulary_options(command: F) -> F:
    """What is decided when a text is prepared; each parameter is None where it is not given."""
    return _add(command, _VOCABULARY, _DEFAULTS, {})


def data_options(command: F) -> F:
    """All of them; presets may have other defaults."""
    return _add(command, _VOCABULARY | _SPLITTING, _DEFAULTS | _OF_A_TOKEN_FILE, PRESETS)


def data_config(source: str, preset: Mapping[str, Any], chosen: Mapping[str, Any]) -> DataConfig:
    """The configuration of a preset with what was chosen; what is wrong with it is wrong usage.

    Of the file ``source``, which if it is a token file has decided about its vocabulary. What a
    preset says of words does not hold for characters.
    """
    known = _VOCABULARY | _SPLITTING
    if "tokens" in preset and chosen.get("tokens", preset["tokens"]) != preset["tokens"]:
        preset = {}
    if Path(source).is_file() and is_token_file(source):
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
        command = click.option(flag, type=kind, help=text)(command)
    return command
