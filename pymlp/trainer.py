"""The training loop: what happens at which step, and how a run is saved and resumed."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from pymlp import sources
from pymlp.averaging import Average
from pymlp.callbacks import Callback
from pymlp.checkpoint import Checkpoint
from pymlp.checks import check_described, check_fit, check_plain
from pymlp.config import TrainConfig
from pymlp.data import Dataset, Splits
from pymlp.evaluate import evaluate
from pymlp.history import Evaluation, History, evaluations
from pymlp.model import MLP
from pymlp.rundir import RunDirectory
from pymlp.stepper import DivergedError, Stepper
from pymlp.steps import Engine


class Trainer:
    """Trains a model in place.

    A forked process must call ``torch.set_num_threads(1)`` first, as for any use of PyTorch: the
    threads of PyTorch's own operators, which check the data, do not survive a fork.

    Args:
        model: its parameters are updated, those with ``requires_grad=False`` excepted; the steps
            run on its device.
        data: train is learnt from; dev is evaluated to find the best checkpoint.
        config: default ``TrainConfig()``.
        callbacks: told about progress, in this order.

    Raises:
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
        self.config = config or TrainConfig()
        self.callbacks = tuple(callbacks)
        self.stepper = Stepper(model, data.train, self.config)
        reach = self.config.average
        self._average = None if reach is None else Average(model, reach)
        self._records: list[dict[str, Any]] = []
        self._best: Evaluation | None = None
        self._best_tensors: dict[str, Tensor] = {}
        self._run: RunDirectory | None = None
        self._saved_step = -1
        self._stopping = False
        # The step at which each was last done.
        self._recorded = {"average": 0, "log": 0, "eval": 0}

    @property
    def step(self) -> int:
        """Updates done."""
        return self.stepper.step

    @property
    def engine(self) -> Engine:
        """What carries out the steps: `NativeEngine` or another `Engine`."""
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
        if self.config.patience is None or self._best is None:
            return False
        since = [e for e in evaluations(self._records) if e.step > self._best.step]
        return len(since) >= self.config.patience

    @property
    def history(self) -> History:
        """What has been measured so far."""
        norms = self.stepper.grad_norms
        return History(
            losses=self.stepper.losses[: self.step].clone(),
            grad_norms=None if norms is None else norms[: self.step].clone(),
            evals=evaluations(self._records),
            best=self._best,
            seconds=self.stepper.seconds,
            us_per_step=self.stepper.us_per_step,
        )

    # --- training ---------------------------------------------------------------------------------

    def fit(self) -> History:
        """Train up to ``config.steps``, from wherever the trainer is, or until it is `exhausted`.

        A run directory, once there is one (`save`, `resume`), gets a checkpoint every
        ``checkpoint_every`` steps and at the end. An exception, KeyboardInterrupt too, leaves
        everything as it is between two steps: call `fit` again to go on, with the evaluation or
        checkpoint first that was interrupted.

        Raises:
            DivergedError: a loss, or at an evaluation, a checkpoint or the end a parameter, is not
                finite any more. The last checkpoint stays.
        """
        self.attend()
        while self.wants_steps:
            self.attend(self.stepper.run(self.next_event()))
        return self.finish()

    # What `fit` is made of, for `train_many`, where many models share their steps.

    @property
    def wants_steps(self) -> bool:
        """Whether `fit` is not at its end."""
        return self.step < self.config.steps and not (self._stopping or self.exhausted)

    def next_event(self) -> int:
        """The step up to which nobody has to look."""
        periods = [self._period(event) for event in ("average", "log", "eval", "checkpoint")]
        events = [(self.step // period + 1) * period for period in periods if period]
        return min(self.config.steps, *events)

    def attend(self, losses: Tensor | None = None) -> None:
        """See to what is due at this step and not done: an exception may have come between.

        Args:
            losses: of the steps that were just done.
        """
        if losses is not None:
            if len(losses) == 0:  # stopped within the first step
                return
            self._tell("on_steps", losses)
        self._update_average()
        if self._is_due("log"):
            self._log()
        if self._is_due("eval"):
            self._evaluate()
        if self._is_due("checkpoint"):
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
        return evaluate(self.average or self.stepper.engine.model, getattr(self.data, split))

    def _update_average(self) -> None:
        period = self._period("average")
        if period and self.step % period == 0 and self._recorded["average"] < self.step:
            assert self._average is not None
            self._average.update(self.step)
            self._recorded["average"] = self.step

    def _period(self, event: str) -> int:
        if event == "average":
            return 0 if self._average is None else self._average.period
        period: int = getattr(self.config, f"{event}_every")
        return period

    def _is_due(self, event: str) -> bool:
        if self._recorded.get(event) == self.step:
            return False
        period = self._period(event)
        return self.step == self.config.steps or (period > 0 and self.step % period == 0)

    def _log(self) -> None:
        every = self.config.log_every
        window = slice((self.step - 1) // every * every, self.step)
        loss = self.stepper.losses[window].mean().item()
        # 12 digits: 0.1 * 0.1 reads 0.01.
        rate = float(f"{self.config.learning_rate(self.step - 1):.12g}")
        record = {"step": self.step, "lr": rate, "loss": loss}
        if self.stepper.grad_norms is not None:
            record["grad_norm"] = self.stepper.grad_norms[window].nanmean().item()
        self._record("log", record)
        self._tell("on_log", loss)

    def _evaluate(self) -> None:
        self._check_parameters()
        with_train = self.config.eval_train or self.step == self.config.steps
        splits = ("train", "dev") if with_train else ("dev",)
        losses = {f"{split}_loss": self.evaluate(split) for split in splits}
        if not all(map(math.isfinite, losses.values())):
            raise self._diverged(", ".join(f"{name} is {x}" for name, x in losses.items()))
        record = {"step": self.step} | losses
        (result,) = evaluations([record])
        # First, because writing the record may fail, and then it counts as evaluated all the same.
        if self._best is None or result.dev < self._best.dev:
            best = self.average or self.model
            self._best_tensors = {n: t.clone() for n, t in best.state_dict().items()}
            self._best = result
        self._record("eval", record)
        self._tell("on_eval", result)

    def _record(self, event: str, record: dict[str, Any]) -> None:
        self._recorded[event] = self.step
        self._records.append(record)
        if self._run is not None:
            self._run.write_metrics(self._records)

    def _tell(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)

    def _check_parameters(self) -> None:
        """The model may be spoilt before a loss shows it: tanh makes finite what is infinite."""
        for name, parameter in self.model.named_parameters():
            if not parameter.isfinite().all():
                raise self._diverged(f"{name} is not finite")

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(f"training diverged: {what} after step {self.step}")

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
        self._saved_step = self.step

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
                f"Trainer: {os.fspath(directory)} has done {len(checkpoint.losses)} steps already, "
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
        self._best = Evaluation(*best) if best else None
        self._best_tensors = checkpoint.group("best")
        if self._average is not None:
            self._average.load_state_dict(checkpoint.group("average"))
        self.stepper.load_state_dict(
            checkpoint.losses, checkpoint.group("optimizer"), checkpoint.group("batches")
        )
        self._saved_step = self.step
        self._recorded = dict.fromkeys(self._recorded, self.step)

    def _commit(self) -> None:
        self._check_parameters()
        if self._run is None or self.step == self._saved_step:
            return
        checkpoint = self._checkpoint()
        self._run.write_metrics(self._records)
        self._run.commit(checkpoint)
        self._saved_step = self.step
        self._tell("on_checkpoint", self._run.path)

    def _checkpoint(self) -> Checkpoint:
        self._update_average()
        groups = {"model": self.model.state_dict(), "best": self._best_tensors}
        if self._average is not None:
            groups["average"] = self._average.state_dict()
        tensors = {f"{group}.{n}": t for group, part in groups.items() for n, t in part.items()}
        frozen = [name for name, p in self.model.named_parameters() if not p.requires_grad]
        return Checkpoint(
            losses=self.stepper.losses[: self.step],
            tensors=tensors | self.stepper.state_dict(),
            info={"best": self._best, "frozen": frozen},
        )
