"""From text to training examples: reading, vocabularies, streams of tokens, data sets.

Semantics are those of the lecture; the work on every character and every example is native. This
module is the public face of `pymlp.lines`, `pymlp.vocabulary`, `pymlp.encoding`, `pymlp.streams`
and `pymlp.dataset`.
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
from pymlp.streams import Examples, StreamExamples, TokenStream
from pymlp.vocabulary import Vocabulary

__all__ = [
    "SPLIT_SEED",
    "Dataset",
    "Ends",
    "Examples",
    "Line",
    "Lines",
    "Overlap",
    "Report",
    "Splits",
    "StreamExamples",
    "TokenStream",
    "Vocabulary",
    "decode",
    "encode",
    "examples",
    "names",
    "read_lines",
    "read_words",
    "report",
    "split",
]
