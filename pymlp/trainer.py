"""The training loop: what happens at which step, and how a run is saved and resumed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pymlp import sources
from pymlp.averaging import Average
from pymlp.callbacks import Callback
from pymlp.checkpoint import Checkpoint
from pymlp.checks import check_described, check_fit, check_plain, checked_config
from pymlp.config import TrainConfig
from pymlp.data import Dataset, Examples, Splits
from pymlp.evaluate import evaluate, evaluated_part, is_sampled
from pymlp.history import Evaluation, History, evaluations
from pymlp.model import MLP
from pymlp.rundir import RunDirectory
from pymlp.stepper import DivergedError, Stepper
from pymlp.steps import Engine


class Best(NamedTuple):
    """The evaluation with the lowest dev loss, the parameters that it is of, and its record.

    They are replaced together, so that an interruption leaves no evaluation without a record.
    """

    evaluation: Evaluation | None = None
    tensors: Mapping[str, Tensor] = MappingProxyType({})
    record: dict[str, Any] | None = None


class Trainer:
    """Trains a model in place.

    A forked process must call ``torch.set_num_threads(1)`` first, as for any use of PyTorch: the
    threads of PyTorch's own operators, which check the data, do not survive a fork.

    Args:
        model: its parameters are updated, those with ``requires_grad=False`` excepted; the steps
            run on its device. `pymlp.load` gives the model of another run to begin with.
        data: train is learnt from; dev is evaluated to find the best checkpoint.
        config: default ``TrainConfig()``.
        callbacks: told about progress, in this order; `pymlp.ProgressBar` shows it.

    Raises:
        TypeError: model, data or config are of another class.
        ValueError: model and data do not fit together, train or dev is empty or holds an id that is
            not in the vocabulary, or nothing is trainable.
    """

    def __init__(
        self,
        model: MLP,
        data: Dataset,
        config: TrainConfig | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        check_fit(model, data)
        self.model = model
        self.data = data
        self.config = checked_config(config)
        self.callbacks = tuple(callbacks)
        self.stepper = Stepper(model, data.train, self.config)
        reach = self.config.average
        self._average = None if reach is None else Average(model, reach)
        # The state is made of parts that are each replaced, or appended to, in one go, and what is
        # due is derived from it: an interruption between two lines loses and doubles nothing.
        self._records: list[dict[str, Any]] = []
        self._best = Best()
        self._run: RunDirectory | None = None
        self._saved = -1, -1  # the steps and the records of the last checkpoint
        self._stopping = False
        self._told = 0, 0  # the steps and the records that the callbacks know of

    @property
    def step(self) -> int:
        """Updates done."""
        return self.stepper.step

    @property
    def engine(self) -> Engine:
        """The engine that carries out the steps: `NativeEngine` or another `Engine`."""
        return self.stepper.engine

    @property
    def engine_reason(self) -> str:
        """Why it is this engine."""
        return self.stepper.engine_reason

    @property
    def average(self) -> MLP | None:
        """The model with averaged parameters, which is what is evaluated; None without one."""
        return None if self._average is None else self._average.model

    @property
    def exhausted(self) -> bool:
        """Whether ``config.patience`` evaluations have passed since the best one."""
        best = self._best.evaluation
        if self.config.patience is None or best is None:
            return False
        since = [e for e in evaluations(self._records) if e.step > best.step]
        return len(since) >= self.config.patience

    @property
    def history(self) -> History:
        """The measurements so far."""
        norms = self.stepper.grad_norms
        return History(
            losses=self.stepper.losses[: self.step].clone(),
            grad_norms=None if norms is None else norms[: self.step].clone(),
            evals=evaluations(self._records),
            best=self._best.evaluation,
            seconds=self.stepper.seconds,
            us_per_step=self.stepper.us_per_step,
        )

    def __repr__(self) -> str:
        evaluation = self._best.evaluation
        best = "" if evaluation is None else f", best dev loss {evaluation.dev:.4f}"
        return (
            f"Trainer(step {self.step:,} of {self.config.steps:,}, engine {self.engine.name}, "
            f"{self.model.config.n_params:,} parameters{best})"
        )

    # --- training ---------------------------------------------------------------------------------

    def fit(self, progress: bool = False) -> History:
        """Train up to ``config.steps``, from wherever the trainer is, or until it is `exhausted`.

        A run directory, once there is one (`save`, `resume`), gets a checkpoint every
        ``checkpoint_every`` steps and at the end. An exception, KeyboardInterrupt too, leaves
        everything as it is between two steps: call `fit` again to go on, with the evaluation or
        checkpoint first that was interrupted. The run ends with the same bits, log and evaluations
        as without it, at whatever line of Python it came.

        Args:
            progress: show on stderr how far it is, as `pymlp.ProgressBar` does.

        Raises:
            DivergedError: a loss, or at an evaluation, a checkpoint or the end a parameter, is not
                finite any more. The last checkpoint stays.
        """
        if progress:
            return self._fit_with_bar()
        self.attend()
        while self.wants_steps:
            self.stepper.run(self.next_event())
            self.attend()
        return self.finish()

    def _fit_with_bar(self) -> History:
        from pymlp.progress import ProgressBar

        callbacks = self.callbacks
        try:
            with ProgressBar() as bar:
                self.callbacks = (*callbacks, bar)
                return self.fit()
        finally:
            self.callbacks = callbacks

    # The parts of `fit`, for `train_many`, where many models share their steps.

    @property
    def wants_steps(self) -> bool:
        """Whether `fit` is not at its end."""
        return self.step < self.config.steps and not (self._stopping or self.exhausted)

    def next_event(self) -> int:
        """The step up to which nobody has to look."""
        periods = [self._period(event) for event in ("average", "log", "eval", "checkpoint")]
        events = [(self.step // period + 1) * period for period in periods if period]
        return min(self.config.steps, *events)

    def attend(self) -> None:
        """See to what is due at this step and not done: an exception may have come between.

        Raises:
            DivergedError: a loss or a parameter is not finite any more.
        """
        self._settle()
        self._announce()
        self._update_average()
        if self._is_due("log", "loss"):
            self._log()
        if self._is_due("eval", "dev_loss"):
            self._evaluate()
        if self._is_at("checkpoint"):
            self._commit()

    def finish(self) -> History:
        """The end of `fit`."""
        self._stopping = False
        self._commit()
        self._tell("on_end")
        return self.history

    def stop(self) -> None:
        """Make `fit`, this one or the next, return soon, with a checkpoint.

        For callbacks, signal handlers and other threads.
        """
        self._stopping = True
        self.stepper.stop()

    def evaluate(self, split: str) -> float:
        """Exact mean loss in nats on ``"train"``, ``"dev"`` or ``"test"``.

        It is that of the `average`, where there is one.

        Raises:
            ValueError: no such split, or it is empty.
        """
        if split not in Splits._fields:
            raise ValueError(f"Trainer: split must be train, dev or test, got {split!r}")
        return self._mean_loss(getattr(self.data, split))

    def _update_average(self) -> None:
        average = self._average
        if average is not None and self.step % average.period == 0 and average.step < self.step:
            average.update(self.step)

    def _period(self, event: str) -> int:
        if event == "average":
            return 0 if self._average is None else self._average.period
        period: int = getattr(self.config, f"{event}_every")
        return period

    def _is_at(self, event: str) -> bool:
        period = self._period(event)
        return self.step == self.config.steps or (period > 0 and self.step % period == 0)

    def _is_due(self, event: str, figure: str) -> bool:
        """Whether a record with that figure belongs to this step, and is not there."""
        last = [record for record in self._records[-2:] if record["step"] == self.step]
        return self.step > 0 and self._is_at(event) and not any(figure in r for r in last)

    def _log(self) -> None:
        every = self.config.log_every
        window = slice((self.step - 1) // every * every, self.step)
        loss = self.stepper.losses[window].mean().item()
        # 12 digits: 0.1 * 0.1 reads 0.01.
        rate = float(f"{self.config.learning_rate(self.step - 1):.12g}")
        record = {"step": self.step, "lr": rate, "loss": loss}
        if self.stepper.grad_norms is not None:
            record["grad_norm"] = self.stepper.grad_norms[window].nanmean().item()
        self._record(record)

    def _evaluate(self) -> None:
        self._check_parameters()
        how = self.config.eval_train
        train = evaluated_part(self.data.train, how)
        parts = {"dev": self.data.dev} if train is None else {"train": train, "dev": self.data.dev}
        losses = {
            f"{name}_loss": self._mean_loss(part, partial(self._tell_progress, name, len(part)))
            for name, part in parts.items()
        }
        if not all(map(math.isfinite, losses.values())):
            raise self._diverged(", ".join(f"{name} is {x}" for name, x in losses.items()))
        record: dict[str, Any] = {"step": self.step} | losses
        if train is not None and is_sampled(self.data.train, how):
            record["train_sample"] = len(train)
        (result,) = evaluations([record])
        best = self._best.evaluation
        if best is None or result.dev < best.dev:
            model = self.average or self.model
            tensors = {n: t.clone() for n, t in model.state_dict().items()}
            self._best = Best(result, tensors, record)
        self._record(record)

    def _mean_loss(
        self, examples: Examples, progress: Callable[[int], None] | None = None
    ) -> float:
        """The loss of the average or the model, in eval mode, which attached layers may have."""
        model = self.average or self.stepper.engine.model
        training = [module for module in model.modules() if module.training]
        try:
            model.eval()
            return evaluate(model, examples, progress=progress)
        finally:
            for module in training:
                module.training = True

    def _tell_progress(self, split: str, total: int, done: int) -> None:
        self._tell("on_eval_progress", split, done, total)

    def _announce(self) -> None:
        """Tell the callbacks what they do not know yet, again where they were interrupted.

        Raises:
            DivergedError: a loss is not finite.
        """
        steps, records = self._told
        if steps < self.step:
            self.stepper.check_losses(steps)
            self._tell("on_steps", self.stepper.losses[steps : self.step])
            self._told = self.step, records
        for number, record in enumerate(self._records[records:], records + 1):
            if "loss" in record:
                self._tell("on_log", record["loss"])
            for evaluation in evaluations([record]):
                self._tell("on_eval", evaluation)
            self._told = self.step, number

    def _settle(self) -> None:
        """Finish what an interruption has left undone."""
        self.stepper.settle()
        record = self._best.record
        if record is not None and record not in self._records[-2:] and record["step"] == self.step:
            self._records.append(record)

    def _record(self, record: dict[str, Any]) -> None:
        self._records.append(record)
        if self._run is not None:
            self._run.write_metrics(self._records)
        self._announce()

    def _tell(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)

    def _check_parameters(self) -> None:
        """The model may be spoilt before a loss shows it: tanh makes finite what is infinite."""
        for name, parameter in self.model.named_parameters():
            # Recorded for a gradient that nobody asks for, it could wait for another thread, which
            # uses the model and waits for this one.
            if not parameter.detach().isfinite().all():
                raise self._diverged(f"{name} is not finite")

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(f"training diverged: {what} after step {self.step}", self.step)

    # --- the run directory ------------------------------------------------------------------------

    def save(
        self,
        directory: str | os.PathLike[str],
        *,
        source: str | None = None,
        overwrite: bool = False,
    ) -> None:
        """Make a run directory of the present state; from now on `fit` keeps it up to date.

        This process holds the lock of the directory from now on, as long as this trainer lives, so
        that no other process trains there. In this process another trainer may `resume` the run;
        this one then raises RunInUseError at its next checkpoint. File systems without locks, such
        as NFS mounted with ``nolock``, keep nobody out, which a RuntimeWarning says.

        Args:
            directory: a new or empty one.
            source: file that the data were read from, or `pymlp.sources.BUNDLED`; `resume` and the
                command line find the data there.
            overwrite: replace the run that is in ``directory``.

        Raises:
            FileExistsError: ``directory`` holds a run and ``overwrite`` is False, or other files.
            RunInUseError: another process trains in ``directory``; a kind of OSError.
            ValueError: the model is not a plain `MLP` any more, or the config, the data set or its
                vocabulary is of a class of its own, so that `resume` could not make it.
            DivergedError: a parameter is not finite.
        """
        self._settle()
        check_plain(self.model)
        check_described(self.config, self.data)
        self._check_parameters()
        config = {
            "data": sources.describe(self.data, source),
            "model": asdict(self.model.config),
            "train": asdict(self.config),
        }
        self._run = RunDirectory.create(
            directory,
            config,
            self.data.vocabulary,
            self._checkpoint(),
            self._records,
            overwrite=overwrite,
        )
        self._saved = self._extent

    @classmethod
    def resume(
        cls,
        directory: str | os.PathLike[str],
        data: Dataset | None = None,
        callbacks: Sequence[Callback] = (),
        *,
        steps: int | None = None,
        device: str | torch.device = "cpu",
    ) -> Trainer:
        """The trainer of a run directory, at its last checkpoint.

        Its `fit` ends with the same bits as a run that was never interrupted, on the same machine
        with the same versions and, for ``engine="reference"``, the same number of threads.

        Args:
            directory: where `save` and `fit` wrote.
            data: the data of the run; None reads them again from where the run says.
            callbacks: as in the constructor.
            steps: train up to this step instead of the run's own, from now on.
            device: to train on.

        Raises:
            FileNotFoundError: no run there, or its data are gone.
            RunInUseError: another process trains there; a kind of OSError. See `save`.
            ValueError: the run cannot be read, the data have changed, or more than ``steps``
                are done. The run is as it was.
        """
        run = RunDirectory.open(directory, to_train=True)
        config = run.config()
        train_config = run.train_config(steps)
        if data is None:
            data = sources.recall(config["data"], run.model_config().block_size)
        else:
            sources.check(data, config["data"])
        checkpoint = run.rewind()
        if len(checkpoint.losses) > train_config.steps:
            raise ValueError(
                f"{os.fspath(directory)} has done {len(checkpoint.losses)} steps already, "
                f"more than steps={train_config.steps}"
            )
        model = run.build_model(checkpoint.group("model")).to(device)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in checkpoint.info["frozen"])
        trainer = cls(model, data, train_config, callbacks)
        trainer._restore(run, checkpoint)
        run.claim()
        run.write_config(config | {"train": asdict(train_config)})
        return trainer

    def _restore(self, run: RunDirectory, checkpoint: Checkpoint) -> None:
        self._run = run
        self._records = run.metrics()
        best = checkpoint.info["best"]
        self._best = Best(Evaluation(*best) if best else None, checkpoint.group("best"))
        if self._average is not None:
            self._average.load_state_dict(checkpoint.group("average"), len(checkpoint.losses))
        self.stepper.load_state_dict(
            checkpoint.losses, checkpoint.group("optimizer"), checkpoint.group("batches")
        )
        self._saved = self._extent
        self._told = self.step, len(self._records)

    def _commit(self) -> None:
        self._check_parameters()
        if self._run is None or self._saved == self._extent:
            return
        check_plain(self.model)
        check_described(self.config, self.data)
        checkpoint = self._checkpoint()
        self._run.write_metrics(self._records)
        self._run.commit(checkpoint)
        self._tell("on_checkpoint", self._run.path)
        self._saved = self._extent

    @property
    def _extent(self) -> tuple[int, int]:
        """The steps and the records that a checkpoint of now has."""
        return self.step, len(self._records)

    def _checkpoint(self) -> Checkpoint:
        self._settle()
        self._update_average()
        groups = {"model": self.model.state_dict(), "best": self._best.tensors}
        if self._average is not None:
            groups["average"] = self._average.state_dict()
        tensors = {f"{group}.{n}": t for group, part in groups.items() for n, t in part.items()}
        frozen = [name for name, p in self.model.named_parameters() if not p.requires_grad]
        return Checkpoint(
            losses=self.stepper.losses[: self.step],
            tensors=tensors | self.stepper.state_dict(),
            info={"best": self._best.evaluation, "frozen": frozen},
        )
