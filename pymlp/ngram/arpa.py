"""ARPA files, in which language toolkits exchange back-off n-gram models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pymlp import _engine
from pymlp.files import write_atomically
from pymlp.ngram.counts import NGramCounts

_BEGIN, _END = "<s>", "</s>"
# Readers take the last one for `<unk>`, too.
_TAKEN = (_BEGIN, _END, "<UNK>")
_LOG10_E = np.log10(np.e)
# The customary log10 p of what is never predicted.
_NEVER = -99.0
# By the number of columns; the largest order has no backoffs.
_LINE = {2: "{:.7f}\t{}\n", 3: "{:.7f}\t{}\t{:.7f}\n"}


def write_arpa(
    path: str | PathLike[str],
    counts: NGramCounts,
    model: _engine.KneserNey,
    tokens: Iterable[str],
) -> None:
    """The implementation of `KneserNey.write_arpa`."""
    if not counts.reset:
        raise ValueError(
            "write_arpa: contexts of this model run across lines, which ARPA files cannot say; "
            "fit one with reset=True"
        )
    if isinstance(tokens, str) or not isinstance(tokens, Iterable):
        raise TypeError(f"write_arpa: tokens must be a list of str, got {tokens!r:.40}")
    tokens = list(tokens)
    _check_spellings(tokens, counts.vocab_size)
    head, body = ["\\data\\\n"], list[str]()
    for n, lines in enumerate(_sections(counts, model, tokens), 1):
        head.append(f"ngram {n}={len(lines)}\n")
        body += [f"\n\\{n}-grams:\n", *lines]
    write_atomically(Path(path), "".join([*head, *body, "\n\\end\\\n"]).encode())


def _sections(
    counts: NGramCounts, model: _engine.KneserNey, tokens: Sequence[str]
) -> Iterator[list[str]]:
    """The lines of each order. Of the n-grams only those of one order are kept as text."""
    contexts = [""]
    spellings = [_END, *tokens[1:]]
    for n in range(1, counts.order + 1):
        prefixes, last, _ = counts.native.ngrams(n)
        pairs = zip(prefixes.tolist(), last.tolist(), strict=True)
        ngrams = [f"{contexts[prefix]} {spellings[token]}".lstrip() for prefix, token in pairs]
        log_probs = _base_10(model.ngram_log_probs(n))
        backoffs = _base_10(model.ngram_log_backoffs(n)) if n < counts.order else []
        contexts = ngrams
        if n == 1:  # the boundary has two spellings: one begins n-grams, the other ends them
            contexts = [_BEGIN, *ngrams[1:]]
            log_probs, ngrams = [_NEVER, *log_probs], [_BEGIN, *ngrams]
            backoffs[1:1] = [0.0] * bool(backoffs)
        columns = (log_probs, ngrams, backoffs) if backoffs else (log_probs, ngrams)
        yield list(map(_LINE[len(columns)].format, *columns))


def _base_10(logarithms: NDArray[np.float64]) -> list[float]:
    base_10: list[float] = (logarithms * _LOG10_E).tolist()
    return base_10


def _check_spellings(tokens: Sequence[str], vocab_size: int) -> None:
    if len(tokens) != vocab_size:
        raise ValueError(f"write_arpa: expected {vocab_size} tokens, got {len(tokens)}")
    seen = set(_TAKEN)
    for token in tokens[1:]:
        if not isinstance(token, str):
            raise TypeError(f"write_arpa: tokens must be of type str, got {token!r}")
        if token in seen or token.split() != [token] or not _is_text(token):
            raise ValueError(
                f"write_arpa: {token!r} cannot be a token of an ARPA file: tokens are distinct, "
                f"none of {', '.join(_TAKEN)}, not empty and without white "
                "space, NUL or surrogates; spell it otherwise for the file, a blank as U+2581, say"
            )
        seen.add(token)


def _is_text(token: str) -> bool:
    """Whether readers get the token as it is: C strings end with NUL, UTF-8 has no surrogates."""
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in token)
