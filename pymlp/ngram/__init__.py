"""N-gram language models: the baselines of a neural model, and its mixtures with them.

They read token streams: arrays of ids in which id 0 is the boundary that ends every line, is
predicted like any token, and stands before the stream. docs/ngrams.md has the formulas.
"""

from pymlp.ngram.base import NGramModel
from pymlp.ngram.bigram import Bigram, NeuralBigram
from pymlp.ngram.bins import context_bins, frequency_bins
from pymlp.ngram.cache import Cache
from pymlp.ngram.counts import NGramCounts
from pymlp.ngram.interpolation import DeletedInterpolation
from pymlp.ngram.kneser_ney import KneserNey
from pymlp.ngram.mixture import Mixture

__all__ = [
    "Bigram",
    "Cache",
    "DeletedInterpolation",
    "KneserNey",
    "Mixture",
    "NGramCounts",
    "NGramModel",
    "NeuralBigram",
    "context_bins",
    "frequency_bins",
]
