"""From text to training examples: reading, vocabularies, streams of tokens, data sets.

Semantics are those of the lecture; the work on every character and every example is native. This
module is the public face of `pymlp.lines`, `pymlp.vocabulary`, `pymlp.encoding`, `pymlp.streams`,
`pymlp.dataset`, `pymlp.loading` and `pymlp.token_file`.
"""

from pymlp.dataset import Dataset, Ends
from pymlp.encoding import decode, encode, examples
from pymlp.lines import (
    SPLIT_SEED,
    Line,
    Lines,
    Overlap,
    Report,
    Splits,
    names,
    read_lines,
    read_words,
    report,
    split,
)
from pymlp.loading import DataConfig, load
from pymlp.streams import Examples, StreamExamples, TokenStream
from pymlp.token_file import Prepared, open_token_file, prepare
from pymlp.vocabulary import Vocabulary

__all__ = [
    "SPLIT_SEED",
    "DataConfig",
    "Dataset",
    "Ends",
    "Examples",
    "Line",
    "Lines",
    "Overlap",
    "Prepared",
    "Report",
    "Splits",
    "StreamExamples",
    "TokenStream",
    "Vocabulary",
    "decode",
    "encode",
    "examples",
    "load",
    "names",
    "open_token_file",
    "prepare",
    "read_lines",
    "read_words",
    "report",
    "split",
]
