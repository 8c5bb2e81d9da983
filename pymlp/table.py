"""The paper's Table 1 on a corpus of one's own: every row trained, judged, and put beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pymlp.callbacks import Callback
from pymlp.data import Dataset, Examples, Splits
from pymlp.evaluate import perplexity
from pymlp.inference import token_losses
from pymlp.model import MLP
from pymlp.ngram import (
    DeletedInterpolation,
    KneserNey,
    Mixture,
    NGramCounts,
    NGramModel,
    context_bins,
    frequency_bins,
)
from pymlp.ngram.base import Ids
from pymlp.paper import COUNTED_ROWS, NEURAL_ROWS, Counted, Figures, Neural
from pymlp.run_config import RunConfig
from pymlp.rundir import RunDirectory
from pymlp.trainer import Trainer

ROWS: dict[str, Neural | Counted] = {row.name: row for row in (*NEURAL_ROWS, *COUNTED_ROWS)}
# Names of the rows with the sizes that the configuration has, alone and mixed.
OWN, OWN_MIXED = "own", "own mixed"
MIXTURES = ("fixed", "learned", "binned", "contexts")

# Positions' worth of the common weights in each bin of contexts; those of the rarest have few.
_PRIOR = 20

# Examples whose losses are asked for at once; only memory depends on it.
_AT_ONCE = 2**15

# log p of each token of the splits that are judged.
LogProbs: TypeAlias = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class TableRow:
    """One row: what was trained, and how well it predicts.

    Attributes:
        row: of the paper's table.
        n_params: trainable parameters, or those of the neural part; None for an n-gram model.
        seconds: of training; None where the run directory had the model already.
        perplexity: by split, exp of the mean loss over all its tokens, boundaries included.
    """

    row: Neural | Counted
    n_params: int | None
    seconds: float | None
    perplexity: Mapping[str, float]

    @property
    def paper(self) -> Figures:
        """The paper's perplexities, on its tokenisation of the Brown corpus."""
        return self.row.paper


def paper_table(
    data: Dataset,
    config: RunConfig,
    directory: str | os.PathLike[str],
    rows: Sequence[str] = tuple(ROWS),
    *,
    mixture: str = "fixed",
    test: bool = False,
    source: str | None = None,
    callbacks: Sequence[Callback] = (),
    on_row: Callable[[TableRow], None] = lambda row: None,
) -> list[TableRow]:
    """Train and judge rows of Table 1 of Bengio et al. (2003) on `data`.

    Neural rows are judged with the parameters that had the lowest dev loss. A mixed row is its
    neighbour's model, mixed with the trigram of deleted interpolation whose weights, like those of
    the mixture, are learned on dev. The rows "own" and "own mixed" have the sizes of `config` and
    `data` instead of the paper's. The paper's class-based models are not among the rows.

    Args:
        data: words; each row sets the block size.
        config: how every neural row is trained; each row sets the sizes.
        directory: gets one run directory a model; a run that is there is gone on with, so that an
            interrupted table goes on where it was.
        rows: names of `ROWS`, "own" or "own mixed".
        mixture: "fixed", half and half, "learned", or "binned" by the frequency of the context,
            as in the paper; "contexts" mixes with Kneser-Ney of order 5 as well, binned by the
            longest context that train has (`pymlp.ngram.context_bins`).
        test: also read the test split.
        source: file that the data were read from, as for `Trainer.save`.
        callbacks: of the trainers.
        on_row: told about each row when it is done; an exception from it ends the table.

    Returns:
        The rows in the order asked for.

    Raises:
        ValueError: no such row or kind, a split without examples, or a run in `directory` was
            trained otherwise.
    """
    own = _own_rows(data, config)
    unknown = [name for name in rows if name not in ROWS | own]
    if unknown or mixture not in MIXTURES:
        raise ValueError(
            f"paper_table: rows must be among {', '.join(ROWS | own)} and mixture among "
            f"{', '.join(MIXTURES)}, got {', '.join(unknown) or mixture}"
        )
    judged = Splits._fields if test else Splits._fields[:2]
    empty = [split for split in judged if data.sizes[split] == 0]
    if empty:
        raise ValueError(
            f"paper_table: every split that is judged needs examples, {', '.join(empty)} has none, "
            f"got {data.sizes}"
        )
    bench = _Bench(data, config, Path(directory), mixture, judged, source, callbacks)
    made = []
    for name in rows:
        made.append(bench.row((ROWS | own)[name]))
        on_row(made[-1])
    return made


def _own_rows(data: Dataset, config: RunConfig) -> dict[str, Neural | Counted]:
    sizes = (data.block_size + 1, config.n_hidden, config.n_embd, config.direct)
    nothing = Figures(None, None, None)
    return {
        OWN: Neural(OWN, *sizes, False, nothing),
        OWN_MIXED: Neural(OWN_MIXED, *sizes, True, nothing),
    }


class _Judged(NamedTuple):
    """A model's log p of every token, and what it cost."""

    log_probs: LogProbs
    seconds: float | None
    n_params: int | None = None


class _Bench:
    """Makes rows; what several of them need is made once."""

    def __init__(
        self,
        data: Dataset,
        config: RunConfig,
        directory: Path,
        mixture: str,
        splits: Sequence[str],
        source: str | None,
        callbacks: Sequence[Callback],
    ) -> None:
        self._data = data
        self._config = config
        self._directory = directory
        self._mixture = mixture
        self._splits = splits
        self._source = source
        self._callbacks = callbacks
        self._networks: dict[str, _Judged] = {}
        self._fitted: dict[int, _Judged] = {}  # Kneser-Ney, by order

    def row(self, row: Neural | Counted) -> TableRow:
        if isinstance(row, Counted):
            counted = self._counted(row)
            return TableRow(row, None, counted.seconds, _perplexities(counted.log_probs))
        network = self._network(row)
        log_probs = self._mix(network.log_probs) if row.mixed else network.log_probs
        return TableRow(row, network.n_params, network.seconds, _perplexities(log_probs))

    # --- models -----------------------------------------------------------------------------------

    def _network(self, row: Neural) -> _Judged:
        """The row's network, which it may share with another row."""
        data = replace(self._data, block_size=row.order - 1)
        name = f"t{data.block_size}-h{row.n_hidden}-e{row.n_embd}" + "-direct" * row.direct
        if name not in self._networks:
            config = replace(
                self._config, n_hidden=row.n_hidden, n_embd=row.n_embd, direct=row.direct
            )
            model, seconds = self._train(config, data, self._directory / name)
            log_probs = {s: _token_log_probs(model, getattr(data, s)) for s in self._splits}
            self._networks[name] = _Judged(log_probs, seconds, model.config.n_params)
        return self._networks[name]

    def _train(self, config: RunConfig, data: Dataset, directory: Path) -> tuple[MLP, float | None]:
        """The best model of a run, which is made or gone on with, and the seconds it took."""
        if directory.exists():
            trainer = Trainer.resume(directory, data, self._callbacks)
            there, wanted = asdict(trainer.config), asdict(config.train_config())
            differing = [f"{key}={there[key]!r}" for key in there if there[key] != wanted[key]]
            if differing:
                raise ValueError(
                    f"paper_table: the run in {directory} was trained with {', '.join(differing)}, "
                    "unlike what is asked for: name another directory"
                )
        else:
            trainer = config.trainer(data, self._callbacks)
            trainer.save(directory, source=self._source)
        begun = trainer.step
        trainer.fit()
        model = RunDirectory.open(directory).model(best=True)
        return model, None if begun else trainer.history.seconds

    def _counted(self, row: Counted) -> _Judged:
        if row.method == "deleted interpolation":
            return self._trigram
        return self._kneser_ney(row.order)

    def _kneser_ney(self, order: int) -> _Judged:
        if order not in self._fitted:
            self._fitted[order] = self._count(KneserNey(order, *self._kind).fit)
        return self._fitted[order]

    @cached_property
    def _trigram(self) -> _Judged:
        dev = self._ids("dev")
        return self._count(lambda ids: DeletedInterpolation(3, *self._kind).fit(ids, dev))

    def _count(self, fit: Callable[[Ids], NGramModel]) -> _Judged:
        start = time.perf_counter()
        model = fit(self._ids("train"))
        seconds = time.perf_counter() - start
        ids = self._data.stream.ids.numpy()
        return _Judged({s: model.log_probs(ids, *self._span(s)) for s in self._splits}, seconds)

    def _mix(self, neural: LogProbs) -> LogProbs:
        """The network with n-gram models; weights that are learned are learned on dev."""
        models = [neural, self._trigram.log_probs]
        if self._mixture == "contexts":
            models.append(self._kneser_ney(5).log_probs)
            mixture = Mixture("binned", prior=_PRIOR)
        else:
            mixture = Mixture(self._mixture)
        bins = {split: self._bins(split) for split in self._splits}
        mixture.fit([model["dev"] for model in models], bins["dev"])
        return {s: mixture.log_probs([model[s] for model in models], bins[s]) for s in self._splits}

    def _bins(self, split: str) -> NDArray[np.int64] | None:
        if self._mixture not in ("binned", "contexts"):
            return None
        counts = self._counts
        found = counts.look_up(self._data.stream.ids.numpy(), *self._span(split))
        if self._mixture == "contexts":
            return context_bins(found)
        return frequency_bins(found.contexts[:, -1], counts.n_tokens)

    @cached_property
    def _counts(self) -> NGramCounts:
        vocab_size, reset = self._kind
        order = 5 if self._mixture == "contexts" else 3
        return NGramCounts(self._ids("train"), order, vocab_size, reset)

    # --- data -------------------------------------------------------------------------------------

    @property
    def _kind(self) -> tuple[int, bool]:
        return len(self._data.vocabulary), self._data.stream.reset

    def _span(self, split: str) -> tuple[int, int]:
        return getattr(self._data.begins, split), getattr(self._data.ends, split)

    def _ids(self, split: str) -> Ids:
        begin, end = self._span(split)
        ids: Ids = self._data.stream.ids.numpy()[begin:end]
        return ids


def _token_log_probs(model: MLP, examples: Examples) -> NDArray[np.float64]:
    parts = [-token_losses(model, *part).numpy() for part in examples.parts(_AT_ONCE)]
    return np.concatenate(parts)


def _perplexities(log_probs: LogProbs) -> dict[str, float]:
    return {split: perplexity(-values.mean()) for split, values in log_probs.items()}
