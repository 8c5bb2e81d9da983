"""Many independent models at once, one per core, in one process on one copy of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import NamedTuple

import torch

from pymlp.checks import check_fit
from pymlp.data import Dataset
from pymlp.native import NativeEngine
from pymlp.results import Result, Results
from pymlp.run_config import RunConfig
from pymlp.stepper import DivergedError
from pymlp.trainer import Trainer

# Between two looks at what has ended, and between two calls of `progress`.
_PERIOD_SECONDS = 0.2

# After which an interruption no longer waits for models that are being evaluated.
_STOP_SECONDS = 0.06


class Progress(NamedTuple):
    """How far `train_many` is.

    Attributes:
        step: updates done, of all models together.
        steps: updates to do.
        results: of the models that have ended, in the order of their configs.
    """

    step: int
    steps: int
    results: Results


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C ended `train_many`.

    Attributes:
        results: of all models; ``error`` of those that were not done says where they stopped.
    """

    def __init__(self, results: Results) -> None:
        done = sum(result.error is None for result in results)
        super().__init__(f"interrupted with {done} of {len(results)} models done")
        self.results = results


def train_many(
    configs: Iterable[RunConfig],
    data: Dataset,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Results:
    """Train K independent models, as many at a time as there are workers, each on one core.

    Every model ends with the same bits as from ``config.trainer(data).fit()``, whatever the number
    of workers and whatever the other models do. One that diverges does not stop the others: its
    ``error`` says so. All of them share the tokens of ``data``. A model that the native
    engine cannot train gets the engine that `Trainer` would choose; those made of PyTorch run
    their operators on torch's own threads, and Python code of one model at a time.

    Args:
        configs: K of them, begun in this order.
        data: of all models; train is learnt from, train and dev are evaluated as each config says.
        workers: models at a time; None is ``torch.get_num_threads()``.
        progress: called in the calling thread about five times a second, and when a model has
            ended. An exception from it stops all models.

    Returns:
        K results, in the order of ``configs``.

    Raises:
        TypeError: a config is not a `RunConfig`, or ``workers`` is not an int.
        ValueError: there is no config, ``workers`` is less than 1, or a split of ``data`` is empty.
        TrainingInterrupted: on Ctrl-C, a KeyboardInterrupt with the ``results`` so far. Models stop
            within a step; one that is being evaluated stops after it.

    Example:
        >>> data = pymlp.data.Dataset.from_lines(pymlp.data.names())
        >>> base = pymlp.RunConfig(steps=20_000, schedule="step")
        >>> rates = [0.03, 0.1, 0.3, 1.0]
        >>> results = pymlp.train_many([replace(base, lr=lr) for lr in rates], data)
        >>> print(results.by_dev_loss())
    """
    configs = list(configs)
    workers = torch.get_num_threads() if workers is None else workers
    _check(configs, workers)
    runs = [_Run(config, data) for config in configs]
    check_fit(runs[0].model, data)
    pool = ThreadPoolExecutor(min(workers, len(runs)), thread_name_prefix="train_many")
    futures: list[Future[None]] = []
    try:
        futures += [pool.submit(run.train) for run in runs]
        _follow(runs, futures, progress)
    except BaseException as error:
        for run in runs:
            run.stop()
        pool.shutdown(wait=False, cancel_futures=True)
        wait([future for future in futures if not future.cancelled()], _STOP_SECONDS)
        if isinstance(error, KeyboardInterrupt):
            raise TrainingInterrupted(Results(run.result() for run in runs)) from None
        raise
    pool.shutdown()
    return Results(run.result() for run in runs)


def _check(configs: Sequence[RunConfig], workers: int) -> None:
    if not configs:
        raise ValueError("train_many: there are no configs")
    for index, config in enumerate(configs):
        if not isinstance(config, RunConfig):
            raise TypeError(
                f"train_many: configs must be of RunConfig, got {config!r} at index {index}"
            )
    if isinstance(workers, bool) or not isinstance(workers, int):
        raise TypeError(f"train_many: workers must be an int, got {workers!r}")
    if workers < 1:
        raise ValueError(f"train_many: workers must be at least 1, got {workers}")


class _Run:
    """One model on its way; `train` runs in a worker, the rest in the calling thread."""

    def __init__(self, config: RunConfig, data: Dataset) -> None:
        self.config = config
        # Here and not in a worker: torch.nn draws from the global generator.
        self.model = config.build_model(data)
        self._data = data
        self._trainer: Trainer | None = None
        self._stopping = False
        self._result: Result | None = None

    def train(self) -> None:
        error = None
        try:
            self._fit()
        except DivergedError as diverged:
            error = str(diverged)
        except Exception as other:  # lack of memory, say, which need not hit the others
            error = f"{type(other).__name__}: {other}"
        if error is None and self.step < self.config.steps:
            error = self._interrupted()
        self._result = Result.of(self.config, self.model, self._trainer, error)
        self._trainer = None  # nobody needs its losses and scratch any more

    def _fit(self) -> None:
        trainer = Trainer(self.model, self._data, self.config.train_config())
        if isinstance(trainer.engine, NativeEngine):
            trainer.engine.threads = 1
        self._trainer = trainer
        if not self._stopping:
            trainer.fit()

    def stop(self) -> None:
        self._stopping = True
        trainer = self._trainer
        if trainer is not None:
            trainer.stop()

    @property
    def step(self) -> int:
        trainer = self._trainer
        if trainer is not None:
            return trainer.step
        return 0 if self._result is None else self._result.step

    @property
    def ended(self) -> Result | None:
        return self._result

    def result(self) -> Result:
        """How the model ended, or where it is if it is still being stopped."""
        if self._result is not None:
            return self._result
        return Result.of(self.config, self.model, self._trainer, self._interrupted())

    def _interrupted(self) -> str:
        return f"interrupted at step {self.step}"


def _follow(
    runs: Sequence[_Run],
    futures: Iterable[Future[None]],
    progress: Callable[[Progress], None] | None,
) -> None:
    """Wait until all have ended; in short goes, so that signals are handled."""
    steps = sum(run.config.steps for run in runs)
    pending = set(futures)
    while pending:
        done, pending = wait(pending, _PERIOD_SECONDS, FIRST_COMPLETED)
        for future in done:
            future.result()
        if progress is not None:
            ended = Results(run.ended for run in runs if run.ended is not None)
            progress(Progress(sum(run.step for run in runs), steps, ended))
