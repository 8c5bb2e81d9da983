"""Suite `ops`: each fused operator beside the plain one, forward, backward and both.

Sizes are the lecture's model: T=3, E=10, H=200, V=27. `eager` is what one writes in PyTorch,
`compile` is torch.compile of that, `reduce-overhead` the same in that mode, which records CUDA
graphs; the truth is pymlp.reference in float64.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pymlp import functional, reference

from . import device
from .harness import Builder, Case, Suite, Task, Values

LECTURE = {"T": 3, "E": 10, "H": 200, "V": 27}
MODES = ("forward", "backward", "full")
SEED = 42

Function = Callable[..., Tensor]


def embed_linear_tanh(tokens: Tensor, embedding: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.tanh(F.linear(F.embedding(tokens, embedding).flatten(-2), weight, bias))


def linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, linear_bias: Tensor
) -> Tensor:
    return F.cross_entropy(F.linear(input, linear_weight, linear_bias), target)


PLAIN: dict[str, Function] = {
    "embed_linear_tanh": embed_linear_tanh,
    "cross_entropy": F.cross_entropy,
    "linear_cross_entropy": linear_cross_entropy,
}


@dataclass(frozen=True)
class Problem:
    """Inputs of an op by keyword; gradients are asked for ``leaves``, given the output's."""

    arguments: Values
    leaves: tuple[str, ...]
    gradient: Tensor

    def to(self, dtype: torch.dtype) -> "Problem":
        """The same numbers in another dtype, as new leaves, on the device that is measured."""
        place = device.current()
        arguments = {
            name: value.detach().to(place, dtype).requires_grad_()
            if name in self.leaves
            else value.to(place)
            for name, value in self.arguments.items()
        }
        return Problem(arguments, self.leaves, self.gradient.to(place, dtype))

    def gradients(self, output: Tensor, keep_graph: bool = False) -> tuple[Tensor, ...]:
        """Gradients of ``output`` with respect to the leaves."""
        inputs = [self.arguments[name] for name in self.leaves]
        return torch.autograd.grad(output, inputs, self.gradient, retain_graph=keep_graph)

    def values(self, output: Tensor, gradients: tuple[Tensor, ...]) -> Values:
        """The values that the check compares."""
        named = {f"gradient of {name}": g for name, g in zip(self.leaves, gradients, strict=True)}
        return {"output": output.detach(), **named}


def sizes(case: Case) -> dict[str, int]:
    """T, E, H and V: what the shape of the case says, else the lecture's."""
    return LECTURE | {name: int(size) for name, size in re.findall(r"(\w)=(\d+)", case.shape)}


def _embed_linear_tanh(
    batch_size: int, generator: torch.Generator, T: int, E: int, H: int, V: int
) -> Problem:
    arguments = {
        "tokens": torch.randint(0, V, (batch_size, T), generator=generator),
        "embedding": torch.randn(V, E, generator=generator),
        "weight": torch.randn(H, T * E, generator=generator) / (T * E) ** 0.5,
        "bias": torch.randn(H, generator=generator) / 10,
    }
    gradient = torch.randn(batch_size, H, generator=generator)
    return Problem(arguments, ("embedding", "weight", "bias"), gradient)


def _cross_entropy(batch_size: int, generator: torch.Generator, V: int, **_: int) -> Problem:
    arguments = {
        "input": torch.randn(batch_size, V, generator=generator),
        "target": torch.randint(0, V, (batch_size,), generator=generator),
    }
    return Problem(arguments, ("input",), torch.tensor(1.0))


def _linear_cross_entropy(
    batch_size: int, generator: torch.Generator, H: int, V: int, **_: int
) -> Problem:
    arguments = {
        "input": torch.randn(batch_size, H, generator=generator).tanh(),
        "linear_weight": torch.randn(V, H, generator=generator) / H**0.5,
        "target": torch.randint(0, V, (batch_size,), generator=generator),
        "linear_bias": torch.randn(V, generator=generator) / 10,
    }
    return Problem(arguments, ("input", "linear_weight", "linear_bias"), torch.tensor(1.0))


MAKERS = {
    "embed_linear_tanh": (_embed_linear_tanh, "TEHV"),
    "cross_entropy": (_cross_entropy, "V"),
    "linear_cross_entropy": (_linear_cross_entropy, "HV"),
}


def problem(case: Case) -> Problem:
    """The case's inputs, the same ones for every provider."""
    make, _ = MAKERS[case.op]
    raw = make(case.batch_size, torch.Generator().manual_seed(SEED), **sizes(case))
    return raw.to(torch.float32)


@functools.lru_cache(maxsize=1)
def _truth(op: str, batch_size: int, shape: str, place: torch.device) -> Values:
    exact = problem(Case("ops", op, "full", batch_size, shape)).to(torch.float64)
    output = getattr(reference, op)(**exact.arguments)
    return exact.values(output, exact.gradients(output))


def truth(case: Case) -> Values:
    """The reference in float64: the output and, unless the mode is forward, the gradients."""
    values = _truth(case.op, case.batch_size, case.shape, device.current())
    return {"output": values["output"]} if case.mode == "forward" else values


def torch_task(case: Case, function: Function) -> Task:
    """A task from a differentiable PyTorch function."""
    given = problem(case)

    def forward() -> Tensor:
        with torch.no_grad():
            return function(**given.arguments)

    def full() -> tuple[Tensor, tuple[Tensor, ...]]:
        output = function(**given.arguments)
        return output, given.gradients(output)

    if case.mode == "forward":
        return Task(forward, lambda: ({"output": forward()}, truth(case)))
    if case.mode == "full":
        return Task(full, lambda: (given.values(*full()), truth(case)))
    output = function(**given.arguments)

    def backward() -> tuple[Tensor, ...]:
        return given.gradients(output, keep_graph=True)

    return Task(backward, lambda: (given.values(output, backward()), truth(case)))


def _eager(case: Case) -> Task:
    return torch_task(case, PLAIN[case.op])


def _compile(case: Case, mode: str | None = None) -> Task:
    torch.compiler.reset()
    # A kept graph may run its backward again, so its buffers must not be given away.
    options = {"donated_buffer": False} if case.mode == "backward" else {}
    with torch._functorch.config.patch(options):
        task = torch_task(case, torch.compile(PLAIN[case.op], dynamic=False, mode=mode))
        task.check()  # compiles, forward and backward
    return task


def _reduce_overhead(case: Case) -> Task:
    task = _compile(case, "reduce-overhead")

    def run() -> object:
        torch.compiler.cudagraph_mark_step_begin()  # the last call's results may be overwritten
        return task.run()

    for _ in range(3):
        run()  # the second call records, the third replays
    return Task(run, task.check)


def _jax(case: Case) -> Task:
    from . import ops_jax

    return ops_jax.task(case, problem(case), truth)


def _chunked(case: Case) -> Task:
    keep_graph = case.mode == "backward"
    options = torch.nn.LinearCrossEntropyOptions(allow_retain_graph=keep_graph)
    return torch_task(case, functools.partial(F.linear_cross_entropy, options=options))


def _pymlp(case: Case) -> Task:
    return torch_task(case, getattr(functional, case.op))


def cases(batch_sizes: list[int], modes: list[str]) -> list[Case]:
    """Ops x batch sizes x modes."""
    return [
        Case("ops", op, mode, batch_size, " ".join(f"{name}={LECTURE[name]}" for name in names))
        for op, (_, names) in MAKERS.items()
        for batch_size in batch_sizes
        for mode in MODES
        if mode in modes
    ]


def builders(case: Case) -> dict[str, Builder]:
    """Providers of the case's op."""
    providers = {"eager": _eager, "compile": _compile, "jax": _jax, "pymlp": _pymlp}
    if case.mode != "backward":  # a recorded backward overwrites what it would need again
        providers["reduce-overhead"] = _reduce_overhead
    if case.op == "linear_cross_entropy":
        providers["chunked"] = _chunked
        if case.mode == "backward":
            # torch.compile (2.13) gives a wrong second backward of a kept graph from B=4096 on.
            del providers["compile"]
    return providers


SUITE = Suite("ops", cases, builders, tolerance=2e-5, on_gpu=True)
