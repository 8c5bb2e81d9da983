"""Whole training loops, the lecture's and ours, at several sizes; suites time them.

Sizes with the vocabulary of the bundled names train on these names, split with seed 42; others on
random tokens. All loops start from the same parameters and, JAX's aside, draw the same batches.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pymlp.config import TrainConfig
from pymlp.data import Dataset, Examples, names
from pymlp.engines import make_engine
from pymlp.model import MLP, MLPConfig
from pymlp.native import NativeEngine
from pymlp.stepper import Stepper

from . import device
from .harness import Case, Values

LR = 0.1
SEED = 2147483647
CHECKED_STEPS = 3
ENDLESS = 10_000_000  # more steps than any run of the benchmarks does
RANDOM_EXAMPLES = 100_000
NAMES_V = 27
# Batches that are drawn at once for a GPU: to send one after the other would wait for each step.
DRAWN_AHEAD = 64

Forward = Callable[..., Tensor]


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model; ``str`` is the shape of a case, ``of`` reads it back."""

    T: int
    E: int
    H: int
    V: int

    def __str__(self) -> str:
        return f"T={self.T} E={self.E} H={self.H} V={self.V}"

    @classmethod
    def of(cls, case: Case) -> "Sizes":
        return cls(*map(int, re.findall(r"=(\d+)", case.shape)))


LECTURE = Sizes(T=3, E=10, H=200, V=NAMES_V)


@functools.cache
def dataset(T: int) -> Dataset:
    """The bundled names with contexts of T tokens."""
    return Dataset.from_lines(names(), block_size=T)


@functools.cache
def training_examples(sizes: Sizes) -> Examples:
    """The examples that a model learns from."""
    if sizes.V == NAMES_V:
        return dataset(sizes.T).train
    g = torch.Generator().manual_seed(SEED)
    return Examples(
        torch.randint(0, sizes.V, (RANDOM_EXAMPLES, sizes.T), generator=g),
        torch.randint(0, sizes.V, (RANDOM_EXAMPLES,), generator=g),
    )


def initial_parameters(sizes: Sizes) -> Values:
    """The lecture's C, W1, b1, W2, b2, scaled so that hidden units start unsaturated."""
    T, E, H, V = sizes.T, sizes.E, sizes.H, sizes.V
    g = torch.Generator().manual_seed(SEED)
    return {
        "C": torch.randn((V, E), generator=g),
        "W1": torch.randn((T * E, H), generator=g) / (T * E) ** 0.5,
        "b1": torch.randn(H, generator=g) * 0.01,
        "W2": torch.randn((H, V), generator=g) * 0.1,
        "b2": torch.randn(V, generator=g) * 0.01,
    }


def to_state_dict(parameters: Values) -> Values:
    """The lecture's parameters under pymlp's names, in torch.nn's layout."""
    return {
        "embedding.weight": parameters["C"],
        "hidden.weight": parameters["W1"].T.contiguous(),
        "hidden.bias": parameters["b1"],
        "output.weight": parameters["W2"].T.contiguous(),
        "output.bias": parameters["b2"],
    }


def make_model(sizes: Sizes, parameters: Values) -> MLP:
    """pymlp's model with the lecture's parameters."""
    model = MLP(MLPConfig(sizes.V, sizes.T, sizes.E, sizes.H))
    model.load_state_dict(to_state_dict(parameters))
    return model


def lecture_loss(
    Xb: Tensor, Yb: Tensor, C: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor
) -> Tensor:
    """The lecture's forward pass and loss."""
    emb = C[Xb]
    h = torch.tanh(emb.view(-1, W1.shape[0]) @ W1 + b1)
    logits = h @ W2 + b2
    return F.cross_entropy(logits, Yb)


def compiled_loss(mode: str | None = None) -> Forward:
    """The same with torch.compile around it."""
    torch.compiler.reset()
    return torch.compile(lecture_loss, dynamic=False, mode=mode)


class LectureLoop:
    """The lecture's training loop."""

    def __init__(
        self,
        sizes: Sizes,
        batch_size: int,
        forward: Forward = lecture_loss,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        examples, place = training_examples(sizes), device.current()
        self.Xtr, self.Ytr = examples.tokens.to(place), examples.targets.to(place)
        self.batch_size = batch_size
        self.forward = forward
        self.g = torch.Generator().manual_seed(SEED)
        self.named = {
            name: parameter.to(place, dtype).requires_grad_()
            for name, parameter in initial_parameters(sizes).items()
        }
        self.parameters = list(self.named.values())
        self.lossi: list[float] = []
        self._drawn: list[Tensor] = []

    def draw(self) -> Tensor:
        if not self._drawn:
            ahead = DRAWN_AHEAD if device.is_gpu() else 1
            size = (self.batch_size,)
            batches = [
                torch.randint(0, self.Xtr.shape[0], size, generator=self.g) for _ in range(ahead)
            ]
            self._drawn = list(torch.stack(batches[::-1]).to(device.current()).unbind())
        return self._drawn.pop()

    def step(self) -> None:
        self.update(self.draw())

    def recorded_step(self, lr: float = LR) -> None:
        self.lossi.append(self.update(self.draw(), lr).item())

    def update(self, ix: Tensor, lr: float = LR) -> Tensor:
        loss = self.forward(self.Xtr[ix], self.Ytr[ix], *self.parameters)
        for p in self.parameters:
            p.grad = None
        loss.backward()
        for p in self.parameters:
            p.data += -lr * p.grad
        return loss

    def values(self) -> Values:
        return {name: p.detach() for name, p in self.named.items()}


class CapturedLoop(LectureLoop):
    """The same with its step recorded in a CUDA graph, which every step replays."""

    def __init__(self, sizes: Sizes, batch_size: int, forward: Forward = lecture_loss) -> None:
        super().__init__(sizes, batch_size, forward)
        self._ix = torch.zeros(batch_size, dtype=torch.int64, device=device.current())
        update = super().update
        self._replay = device.record(lambda: update(self._ix), self.parameters)

    def step(self) -> None:
        self._ix.copy_(self.draw())
        self._replay()


def truth(case: Case, indices: list[Tensor] | None = None) -> Values:
    """The parameters in float64 after steps on the given batches (the loop's own first ones)."""
    loop = LectureLoop(Sizes.of(case), case.batch_size, dtype=torch.float64)
    for ix in indices or [loop.draw() for _ in range(CHECKED_STEPS)]:
        loop.update(ix)
    return loop.values()


def check_lecture(
    case: Case, forward: Forward = lecture_loss, kind: type[LectureLoop] = LectureLoop
) -> tuple[Values, Values]:
    """Parameters of the lecture's loop with ``forward`` after a few steps, and the truth."""
    loop = kind(Sizes.of(case), case.batch_size, forward)
    for _ in range(CHECKED_STEPS):
        loop.step()
    return loop.values(), truth(case)


class EngineLoop:
    """The training steps that `Trainer` runs between two evaluations.

    Args:
        sizes, batch_size: of the model and the batches.
        engine: name of the engine.
        threads: of the native engine; None is torch's number.
        settings: of `TrainConfig`.
    """

    def __init__(
        self,
        sizes: Sizes,
        batch_size: int,
        engine: str,
        threads: int | None = None,
        **settings: Any,
    ) -> None:
        self._examples, self._threads = training_examples(sizes), threads
        self._config = TrainConfig(
            **{"steps": ENDLESS, "batch_size": batch_size, "lr": LR, "seed": SEED} | settings,
            engine=engine,
        )
        self.model = make_model(sizes, initial_parameters(sizes)).to(device.current())
        self._stepper = Stepper(self.model, self._examples, self._config)
        del self._stepper.engine

    def advance(self, steps: int) -> None:
        if not hasattr(self._stepper, "engine"):
            self._make_engine()
        end = self._stepper.step + steps
        while self._stepper.step < end:
            self._stepper.run(end)

    def _make_engine(self) -> None:
        """In the first call and not before, so that its scratch counts as memory of the calls."""
        examples = self._examples.to(self.model.embedding.weight.device)
        engine = make_engine(self._config.engine, self.model, examples, self._config)
        if isinstance(engine, NativeEngine):
            engine.threads = self._threads
        self._stepper.engine = engine


def check_engine(case: Case, engine: str, threads: int | None = None) -> tuple[Values, Values]:
    """Parameters of a model that an engine trained for a few steps, and the truth."""
    loop = EngineLoop(Sizes.of(case), case.batch_size, engine, threads)
    loop.advance(CHECKED_STEPS)
    return dict(loop.model.state_dict()), to_state_dict(truth(case))
