"""Suite `step`: a whole training step of the lecture's model with SGD, the batch draw included.

The model is E=10, H=200, T=3, V=27 on the bundled names, split with seed 42; the time is per step.
The loop of `eager` is the lecture's own, `compile` is the same with torch.compile around the
forward pass and the loss, `jax` is one jitted lax.scan over many steps, `pymlp` is what `Trainer`
runs with ``engine="autograd"``: fused operators under PyTorch autograd, torch.optim.SGD.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pymlp.config import TrainConfig
from pymlp.data import Dataset, Examples, names
from pymlp.model import MLP, MLPConfig
from pymlp.stepper import Stepper

from .harness import Builder, Case, Suite, Task, Values

T, E, H = 3, 10, 200
LR = 0.1
SEED = 2147483647
CHECKED_STEPS = 3
ENDLESS = 10_000_000  # more steps than any run of the benchmarks does

Forward = Callable[..., Tensor]


@functools.cache
def training_examples() -> tuple[Examples, int]:
    """The bundled names' train split, and V."""
    data = Dataset.from_lines(names(), block_size=T)
    return data.train, len(data.vocabulary)


def steps_per_call(batch_size: int) -> int:
    """Steps in one call of a provider that runs many; the Trainer draws as many at once."""
    return max(1, min(64, 4096 // batch_size))


def initial_parameters() -> Values:
    """The lecture's C, W1, b1, W2, b2, scaled so that hidden units start unsaturated."""
    _, vocab_size = training_examples()
    g = torch.Generator().manual_seed(SEED)
    return {
        "C": torch.randn((vocab_size, E), generator=g),
        "W1": torch.randn((T * E, H), generator=g) / (T * E) ** 0.5,
        "b1": torch.randn(H, generator=g) * 0.01,
        "W2": torch.randn((H, vocab_size), generator=g) * 0.1,
        "b2": torch.randn(vocab_size, generator=g) * 0.01,
    }


def lecture_loss(
    Xb: Tensor, Yb: Tensor, C: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor
) -> Tensor:
    """The lecture's forward pass and loss."""
    emb = C[Xb]
    h = torch.tanh(emb.view(-1, W1.shape[0]) @ W1 + b1)
    logits = h @ W2 + b2
    return F.cross_entropy(logits, Yb)


class LectureLoop:
    """The lecture's training loop, one call a step."""

    def __init__(self, batch_size: int, forward: Forward, dtype: torch.dtype) -> None:
        examples, _ = training_examples()
        self.Xtr, self.Ytr = examples.tokens, examples.targets
        self.batch_size = batch_size
        self.forward = forward
        self.g = torch.Generator().manual_seed(SEED)
        self.named = {k: p.to(dtype).requires_grad_() for k, p in initial_parameters().items()}
        self.parameters = list(self.named.values())

    def draw(self) -> Tensor:
        return torch.randint(0, self.Xtr.shape[0], (self.batch_size,), generator=self.g)

    def step(self) -> None:
        self.update(self.draw())

    def update(self, ix: Tensor) -> None:
        loss = self.forward(self.Xtr[ix], self.Ytr[ix], *self.parameters)
        for p in self.parameters:
            p.grad = None
        loss.backward()
        for p in self.parameters:
            p.data += -LR * p.grad

    def values(self) -> Values:
        return {name: p.detach() for name, p in self.named.items()}


def truth(batch_size: int, indices: list[Tensor] | None = None) -> Values:
    """The parameters in float64 after steps on the given batches (the loop's own first ones)."""
    loop = LectureLoop(batch_size, lecture_loss, torch.float64)
    for ix in indices or [loop.draw() for _ in range(CHECKED_STEPS)]:
        loop.update(ix)
    return loop.values()


def _loop_task(case: Case, forward: Forward) -> Task:
    def check() -> tuple[Values, Values]:
        fresh = LectureLoop(case.batch_size, forward, torch.float32)
        for _ in range(CHECKED_STEPS):
            fresh.step()
        return fresh.values(), truth(case.batch_size)

    return Task(LectureLoop(case.batch_size, forward, torch.float32).step, check)


def _eager(case: Case) -> Task:
    return _loop_task(case, lecture_loss)


def _compile(case: Case) -> Task:
    torch.compiler.reset()
    return _loop_task(case, torch.compile(lecture_loss, dynamic=False))


def _jax(case: Case) -> Task:
    from . import step_jax

    return step_jax.task(case)


def _stepper(batch_size: int) -> tuple[Stepper, MLP]:
    examples, vocab_size = training_examples()
    model = MLP(MLPConfig(vocab_size=vocab_size, block_size=T, n_embd=E, n_hidden=H))
    model.load_state_dict(to_state_dict(initial_parameters()))
    config = TrainConfig(steps=ENDLESS, batch_size=batch_size, lr=LR, seed=SEED, engine="autograd")
    return Stepper(model, examples, config), model


def _advance(stepper: Stepper, steps: int) -> None:
    end = stepper.step + steps
    while stepper.step < end:
        stepper.run(end)


def to_state_dict(parameters: Values) -> Values:
    """The lecture's parameters under pymlp's names, in torch.nn's layout."""
    return {
        "embedding.weight": parameters["C"],
        "hidden.weight": parameters["W1"].T.contiguous(),
        "hidden.bias": parameters["b1"],
        "output.weight": parameters["W2"].T.contiguous(),
        "output.bias": parameters["b2"],
    }


def _pymlp(case: Case) -> Task:
    steps = steps_per_call(case.batch_size)

    def check() -> tuple[Values, Values]:
        stepper, model = _stepper(case.batch_size)
        _advance(stepper, CHECKED_STEPS)
        return dict(model.state_dict()), to_state_dict(truth(case.batch_size))

    running, _ = _stepper(case.batch_size)
    return Task(lambda: _advance(running, steps), check, steps)


def cases(batch_sizes: list[int], modes: list[str]) -> list[Case]:
    """One per batch size; the only mode is a whole step."""
    _, vocab_size = training_examples()
    shape = f"T={T} E={E} H={H} V={vocab_size}"
    return [Case("step", "sgd", "step", batch_size, shape) for batch_size in batch_sizes]


def builders(case: Case) -> dict[str, Builder]:
    """Every provider does the whole step."""
    return {"eager": _eager, "compile": _compile, "jax": _jax, "pymlp": _pymlp}


SUITE = Suite("step", cases, builders, tolerance=2e-5)
