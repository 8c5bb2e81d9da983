"""Many independent models at once, in one process on one copy of the data: one per core, or, on a
CUDA device, one per block of its training kernel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import NamedTuple

import torch

from pymlp import device_engine
from pymlp.arguments import to_int
from pymlp.checks import check_dataset, check_fit, checked_device
from pymlp.data import Dataset
from pymlp.device_engine import DeviceEngine, run_together
from pymlp.native import NativeEngine
from pymlp.progress import ModelsBar
from pymlp.results import Result, Results
from pymlp.run_config import RunConfig
from pymlp.stepper import DivergedError
from pymlp.steps import Steps
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
    progress: Callable[[Progress], None] | bool | None = None,
    *,
    device: str | torch.device = "cpu",
) -> Results:
    """Train K independent models at once: on the CPU each on one core, as many at a time as there
    are workers; on CUDA by the training kernel, each by a block of its own. Those that the kernel
    does not take go by a graph of their own, one after the other.

    Every model ends with the same bits as from ``config.trainer(data, device=device).fit()``,
    whatever the number of workers and whatever the other models do. One that diverges does not stop
    the others: its ``error`` says so. All of them share the tokens of ``data``. A model
    that the native engine cannot train gets the engine that `Trainer` would choose; those made of
    PyTorch run their operators on torch's own threads, and Python code of one model at a time.

    Args:
        configs: K of them, begun in this order.
        data: of all models; train is learnt from, train and dev are evaluated as each config says.
        workers: models at a time; None is ``torch.get_num_threads()``. On CUDA, threads that draw
            the batches of the next launch.
        progress: True shows on ``sys.stderr`` how far the models are. A function is called in the
            calling thread about five times a second, and when a model has ended. An exception from
            it stops all models.
        device: of the models.

    Returns:
        K results, in the order of ``configs``.

    Raises:
        TypeError: an argument is of another type.
        ValueError: there is no config or no such device, ``workers`` is less than 1, or a split of
            ``data`` is empty.
        TrainingInterrupted: on Ctrl-C, a KeyboardInterrupt with the ``results`` so far. Models stop
            within a step; one that is being evaluated stops after it.

    Example:
        >>> data = pymlp.data.Dataset.from_lines(pymlp.data.names())
        >>> base = pymlp.RunConfig(steps=20_000, schedule="step")
        >>> rates = [0.03, 0.1, 0.3, 1.0]
        >>> results = pymlp.train_many([replace(base, lr=lr) for lr in rates], data)
        >>> print(results.by_dev_loss())
    """
    if isinstance(configs, RunConfig) or not isinstance(configs, Iterable):
        given = type(configs).__name__
        raise TypeError(f"train_many: configs must be a list of RunConfig, got a {given}")
    configs = list(configs)
    _check(configs)
    check_dataset("train_many", data)
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise TypeError(
            f"train_many: progress must be True, False, None or a function, got {progress!r:.40}"
        )
    workers = torch.get_num_threads() if workers is None else workers
    workers = to_int("train_many", "workers", workers, 1)
    device = checked_device("train_many", device)
    runs = [_Run(config, data, device) for config in configs]
    check_fit(runs[0].model, data)
    train = _on_device if device.type in device_engine.DEVICES else _on_cores
    follow = ModelsBar(len(runs)) if progress is True else progress or None
    try:
        train(runs, workers, follow)
    except KeyboardInterrupt:
        raise TrainingInterrupted(Results(run.result() for run in runs)) from None
    finally:
        if isinstance(follow, ModelsBar):
            follow.end()
    return Results(run.result() for run in runs)


def _on_cores(
    runs: Sequence[_Run], workers: int, progress: Callable[[Progress], None] | None
) -> None:
    pool = ThreadPoolExecutor(min(workers, len(runs)), thread_name_prefix="train_many")
    futures: list[Future[None]] = []
    try:
        futures += [pool.submit(run.train) for run in runs]
        _follow(runs, futures, progress)
    except BaseException:
        for run in runs:
            run.stop()
        pool.shutdown(wait=False, cancel_futures=True)
        wait([future for future in futures if not future.cancelled()], _STOP_SECONDS)
        raise
    pool.shutdown()


def _on_device(
    runs: Sequence[_Run], workers: int, progress: Callable[[Progress], None] | None
) -> None:
    """Round by round: a launch for all models that are trained by the kernel, a few steps of each
    other, and then what is due of each."""
    with ThreadPoolExecutor(workers, thread_name_prefix="train_many") as pool:
        for run in runs:
            run.guarded(run.begin)
        shown = time.monotonic()
        while going := [run for run in runs if run.ended is None]:
            for dtype in sorted({run.config.dtype for run in going}):
                _launch([run for run in going if run.config.dtype == dtype], pool)
            for run in going:
                run.guarded(run.attend)
            ended = any(run.ended is not None for run in going)
            if progress is not None and (ended or time.monotonic() - shown > _PERIOD_SECONDS):
                shown = time.monotonic()
                progress(_progress(runs))


def _launch(runs: Sequence[_Run], pool: ThreadPoolExecutor) -> None:
    """The next steps of models of one dtype."""
    together = [run for run in runs if run.is_persistent]
    for run in runs:
        if not run.is_persistent:
            run.guarded(run.step_alone)
    list(pool.map(lambda run: run.guarded(run.begin_steps), together))
    begun = [run for run in together if run.ended is None]
    try:
        _step_together(begun)
    except Exception as error:  # lack of memory, say: models that have ended keep their results
        for run in begun:
            run.fail(error)


def _step_together(runs: Sequence[_Run]) -> None:
    start = time.perf_counter()
    try:
        run_together([(run.engine, run.steps) for run in runs])
    finally:
        seconds = time.perf_counter() - start
        for run in runs:
            run.trainer.stepper.end(run.steps, seconds)


def _check(configs: Sequence[RunConfig]) -> None:
    if not configs:
        raise ValueError("train_many: there are no configs")
    for index, config in enumerate(configs):
        if not isinstance(config, RunConfig):
            raise TypeError(
                f"train_many: configs must be of RunConfig, got {config!r} at index {index}"
            )


class _Run:
    """One model on its way.

    On the CPU `train` runs in a worker, all else in the calling thread.
    """

    def __init__(self, config: RunConfig, data: Dataset, device: torch.device) -> None:
        self.config = config
        self.model = config.build_model(data).to(device)
        self._data = data
        self._trainer: Trainer | None = None
        self._steps: Steps | None = None
        self._stopping = False
        self._result: Result | None = None

    def train(self) -> None:
        self.guarded(self._fit)
        if self._result is None:
            self._end(None)

    def guarded(self, part: Callable[[], None]) -> None:
        """Carry out a part of the training; an error is the model's end, and not the others'."""
        try:
            part()
        except Exception as error:  # lack of memory, say, which need not hit the others
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """End the model with this error."""
        if isinstance(error, DivergedError):
            self._end(str(error), error.step)
        else:
            self._end(f"{type(error).__name__}: {error}")

    def _fit(self) -> None:
        trainer = self._make_trainer()
        if isinstance(trainer.engine, NativeEngine):
            trainer.engine.threads = 1
        if not self._stopping:
            trainer.fit()

    def _make_trainer(self) -> Trainer:
        # Nobody reads the log, and no step has to wait for it.
        config = replace(self.config.train_config(), log_every=self.config.steps)
        self._trainer = Trainer(self.model, self._data, config)
        return self._trainer

    # --- round by round ---------------------------------------------------------------------------

    def begin(self) -> None:
        self._make_trainer().attend()

    @property
    def trainer(self) -> Trainer:
        assert self._trainer is not None  # until it has ended
        return self._trainer

    @property
    def engine(self) -> DeviceEngine:
        engine = self.trainer.engine
        assert isinstance(engine, DeviceEngine)
        return engine

    @property
    def is_persistent(self) -> bool:
        """Whether a launch of the training kernel may have its steps beside those of others."""
        engine = self.trainer.engine
        return isinstance(engine, DeviceEngine) and engine.persistent

    def begin_steps(self) -> None:
        self._steps = self.trainer.stepper.begin(self.trainer.next_event())

    @property
    def steps(self) -> Steps:
        """The steps that `begin_steps` began."""
        assert self._steps is not None
        return self._steps

    def step_alone(self) -> None:
        self.trainer.stepper.run(self.trainer.next_event())

    def attend(self) -> None:
        """See to what is due after a round, and to the end if this was the last."""
        if self._result is not None:
            return
        self.trainer.attend()
        if not self.trainer.wants_steps:
            self.trainer.finish()
            self._end(None)

    # --- the end ----------------------------------------------------------------------------------

    def _end(self, error: str | None, step: int | None = None) -> None:
        """Keep the result; ``step`` is where it was lost, if not where the trainer is."""
        if error is None and self.step < self.config.steps:
            error = self._interrupted()
        result = Result.of(self.config, self.model, self._trainer, error)
        self._result = result if step is None else replace(result, step=step)
        self._trainer = None  # nobody needs its losses and scratch any more

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
    pending = set(futures)
    while pending:
        done, pending = wait(pending, _PERIOD_SECONDS, FIRST_COMPLETED)
        for future in done:
            future.result()
        if progress is not None:
            progress(_progress(runs))


def _progress(runs: Sequence[_Run]) -> Progress:
    ended = Results(run.ended for run in runs if run.ended is not None)
    return Progress(sum(run.step for run in runs), sum(run.config.steps for run in runs), ended)
