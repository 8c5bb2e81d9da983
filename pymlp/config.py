"""How a model is trained: one frozen dataclass, checked when it is made."""

import math
from dataclasses import dataclass
from typing import Any

from pymlp.arguments import MOST_RATE, to_bool, to_choice, to_float, to_int

SCHEDULES = ("constant", "step", "cosine", "inverse")
OPTIMIZERS = ("sgd", "momentum", "adamw")
ENGINES = ("auto", "native", "autograd", "reference")

EVAL_TRAIN = ("full", "sample", "no")

_CHOICES = {
    "schedule": SCHEDULES,
    "optimizer": OPTIMIZERS,
    "engine": ENGINES,
    "eval_train": EVAL_TRAIN,
}

# Words of noise, which are drawn a tenth of a second without a look at what else is wanted.
_MOST_NOISE = 2**20

# The least that each count may be. A field whose default is None may be None, here and below.
_COUNTS = {
    "steps": 1,
    "batch_size": 1,
    "warmup_steps": 0,
    "eval_every": 0,
    "checkpoint_every": 0,
    "log_every": 1,
    "lr_drop_step": 0,
    "patience": 1,
    "average": 1,
    "sampled_softmax": 1,
}

_RATES: dict[str, dict[str, float]] = {
    "lr": {"above": 0.0, "most": MOST_RATE},
    "eps": {"above": 0.0},
    "lr_drop_factor": {"least": 0.0},
    "lr_decay": {"least": 0.0, "most": MOST_RATE},
    "momentum": {"least": 0.0, "below": 1.0},
    "label_smoothing": {"least": 0.0, "most": 1.0},
    "z_loss": {"least": 0.0, "most": MOST_RATE},
    "dropout": {"least": 0.0, "below": 1.0},
    "weight_decay": {"least": 0.0, "most": MOST_RATE},
    "max_grad_norm": {"above": 0.0},
}

_SWITCHES = ("decay_biases", "sparse_embedding", "log_grad_norm")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run besides the model and the data.

    Attributes:
        steps: number of parameter updates.
        batch_size: examples in a step, drawn with replacement.
        lr: learning rate, the highest one where the schedule changes it.
        schedule: ``"constant"``, ``"step"`` (one drop), ``"cosine"`` (Loshchilov & Hutter, 2017,
            without restarts, after a linear warm-up) or ``"inverse"`` (Bengio et al., 2003).
        lr_drop_step: first step with the dropped rate, for ``"step"``; None is half of ``steps``.
        lr_drop_factor: what the rate is multiplied by at the drop.
        warmup_steps: length of the linear warm-up of ``"cosine"``; at its last step the rate is
            ``lr``.
        lr_min: rate that ``"cosine"`` falls to.
        lr_decay: r of ``"inverse"``, whose rate after t updates is ``lr / (1 + r * t)``.
        optimizer: ``"sgd"``, ``"momentum"`` (SGD with momentum) or ``"adamw"``, as in torch.optim.
        momentum: for ``"momentum"``.
        weight_decay: None is torch's own default: 0 for SGD, 0.01 for AdamW.
        decay_biases: weight decay pulls at the biases too, as in torch.optim; False spares
            ``hidden.bias`` and ``output.bias``, as the paper does.
        sparse_embedding: a step updates only those rows of ``embedding.weight`` whose tokens occur
            in its batch; momentum, AdamW's averages and weight decay leave the others alone, as
            torch.optim.SparseAdam does. docs/training.md has the rule.
        betas, eps: for ``"adamw"``.
        sampled_softmax: number of words of noise with which, and with each other, the targets of a
            step are compared in place of the whole vocabulary (Bengio & Senecal, 2003; Jean et al.,
            2015); only their rows of the output layer are updated. None is the exact softmax.
            docs/training.md has the rule.
        label_smoothing: share of each target that is spread evenly over the vocabulary (Szegedy et
            al., 2016).
        z_loss: factor of log² Z, Z the sum that softmax divides by: the model learns to do without
            that sum (self-normalised training: Devlin et al., 2014, with 0.1).
        dropout: probability with which each of the T*E inputs and of the H hidden units of an
            example is left out of a step.
        seed: of the generator that draws the batches.
        max_grad_norm: gradients whose norm, over all parameters, is greater are scaled down to it,
            as `torch.nn.utils.clip_grad_norm_` does; None is never.
        log_grad_norm: keep the gradient norms (before clipping) in the `History`, and their means
            in ``metrics.jsonl``.
        engine: ``"native"`` (the whole loop in C++), ``"autograd"`` (fused operators under PyTorch
            autograd), ``"reference"`` (plain PyTorch) or ``"auto"``: native where it applies, else
            autograd, or reference on devices that the operators have no kernels for. The same
            seed gives the same batches in each.
        eval_every: steps between evaluations on all of train and dev; 0 is only after the last.
        eval_train: the part of train that evaluations, the last one too, are over: ``"full"`` is
            all of it, ``"sample"`` is 100,000 evenly spaced examples, or all where there are
            fewer, and ``"no"`` is none, so that the train loss is nan. On a large corpus all of
            train may take as long as the steps between evaluations. True is taken for
            ``"full"`` and False for ``"no"``.
        patience: evaluations without a lower dev loss after which training stops early, the best
            parameters being kept; None is never.
        average: steps that an average of the parameters reaches back; evaluations, and the models
            of the run directory, are then of the average. None trains without one. See
            `pymlp.averaging`.
        checkpoint_every: steps between checkpoints of the run directory; 0 is only after the last.
        log_every: steps between lines with the mean loss in ``metrics.jsonl``.

    What a step minimises, and reports as its loss, is the mean cross-entropy of its batch, or what
    ``sampled_softmax`` puts in its place, with label smoothing, the z-loss and dropout. Evaluations
    are plain cross-entropy of the whole model.

    Raises:
        TypeError: a field has the wrong type.
        ValueError: a field has a value out of its range.
    """

    steps: int = 200_000
    batch_size: int = 32
    lr: float = 0.1
    schedule: str = "constant"
    lr_drop_step: int | None = None
    lr_drop_factor: float = 0.1
    warmup_steps: int = 0
    lr_min: float = 0.0
    lr_decay: float = 0.0
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float | None = None
    decay_biases: bool = True
    sparse_embedding: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    sampled_softmax: int | None = None
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    dropout: float = 0.0
    seed: int = 2147483647
    max_grad_norm: float | None = None
    log_grad_norm: bool = False
    engine: str = "auto"
    eval_every: int = 10_000
    eval_train: str = "full"
    patience: int | None = None
    average: int | None = None
    checkpoint_every: int = 10_000
    log_every: int = 1_000

    def __post_init__(self) -> None:
        if isinstance(self.eval_train, bool):  # of runs before there was a sample
            self._set("eval_train", "full" if self.eval_train else "no")
        for name, known in _CHOICES.items():
            self._set(name, to_choice("TrainConfig", name, getattr(self, name), known))
        for name, least in _COUNTS.items():
            if not self._is_unset(name):
                self._set(name, to_int("TrainConfig", name, getattr(self, name), least))
        self._set("seed", to_int("TrainConfig", "seed", self.seed, 0, most=2**63 - 1))
        for name in _SWITCHES:
            self._set(name, to_bool("TrainConfig", name, getattr(self, name)))
        for name, bounds in _RATES.items():
            if not self._is_unset(name):
                self._set(name, to_float("TrainConfig", name, getattr(self, name), **bounds))
        self._set("betas", _betas(self.betas))
        self._check_combinations()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _is_unset(self, name: str) -> bool:
        return getattr(self, name) is None and type(self).__dataclass_fields__[name].default is None

    def learning_rate(self, step: int) -> float:
        """The rate of update number ``step``, counted from 0."""
        if self.schedule == "step":
            drop = self.steps // 2 if self.lr_drop_step is None else self.lr_drop_step
            return self.lr if step < drop else self.lr * self.lr_drop_factor
        if self.schedule == "cosine":
            return self._cosine(step)
        if self.schedule == "inverse":
            return self.lr / (1.0 + self.lr_decay * step)
        return self.lr

    def _cosine(self, step: int) -> float:
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        height = (1.0 + math.cos(math.pi * min(done, 1.0))) / 2.0
        return self.lr_min + (self.lr - self.lr_min) * height

    def _check_combinations(self) -> None:
        lowest = to_float("TrainConfig", "lr_min", self.lr_min, least=0.0, most=self.lr)
        self._set("lr_min", lowest)
        if self.patience is not None and self.eval_every == 0:
            raise ValueError("TrainConfig: patience needs evaluations: set eval_every above 0")
        if self.sampled_softmax is not None and self.sampled_softmax > _MOST_NOISE:
            raise ValueError(
                f"TrainConfig: sampled_softmax must be at most {_MOST_NOISE}, got "
                f"{self.sampled_softmax}: None is the exact softmax"
            )
        if self.sampled_softmax is not None and self.label_smoothing > 0:
            raise ValueError(
                "TrainConfig: label_smoothing spreads over the whole vocabulary, of which "
                "sampled_softmax sees a part: set one of them alone"
            )


def _betas(value: Any) -> tuple[float, float]:
    try:
        first, second = value
    except (TypeError, ValueError):
        raise ValueError(f"TrainConfig: betas must be two numbers, got {value!r}") from None
    return (
        to_float("TrainConfig", "betas", first, least=0.0, below=1.0),
        to_float("TrainConfig", "betas", second, least=0.0, below=1.0),
    )
