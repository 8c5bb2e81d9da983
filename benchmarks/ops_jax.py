"""Suite `ops` in JAX: the same formulas, one jitted function per mode."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch

from .harness import Case, Task, Values
from .ops import Problem


def embed_linear_tanh(tokens, embedding, weight, bias):
    embedded = embedding[tokens].reshape(tokens.shape[0], -1)
    return jnp.tanh(embedded @ weight.T + bias)


def cross_entropy(input, target):
    log_probabilities = jax.nn.log_softmax(input)
    return -jnp.take_along_axis(log_probabilities, target[:, None], axis=1).mean()


def linear_cross_entropy(input, linear_weight, target, linear_bias):
    return cross_entropy(input @ linear_weight.T + linear_bias, target)


FUNCTIONS = {f.__name__: f for f in (embed_linear_tanh, cross_entropy, linear_cross_entropy)}


def to_jax(value: torch.Tensor) -> jax.Array:
    """A copy that XLA owns; ids become int32, JAX's default."""
    return jnp.array(value.detach().numpy())


def to_torch(value: jax.Array) -> torch.Tensor:
    """A copy as a torch tensor."""
    return torch.from_numpy(np.array(value))


def task(case: Case, problem: Problem, truth: Callable[[Case], Values]) -> Task:
    """The case's op; its inputs are arguments of the jitted function, so XLA folds none of them."""
    arguments = {name: to_jax(value) for name, value in problem.arguments.items()}
    leaves = {name: arguments.pop(name) for name in problem.leaves}
    gradient = to_jax(problem.gradient)
    function = FUNCTIONS[case.op]

    def pull(arguments, leaves):
        return jax.vjp(lambda leaves: function(**arguments, **leaves), leaves)

    def push(backward, gradient):
        return backward(gradient)[0]

    def both(arguments, leaves, gradient):
        output, backward = pull(arguments, leaves)
        return output, push(backward, gradient)

    def values(output, gradients) -> Values:
        named = tuple(to_torch(gradients[name]) for name in problem.leaves)
        return problem.values(to_torch(output), named)

    if case.mode == "forward":
        forward = jax.jit(lambda arguments, leaves: function(**arguments, **leaves))
        run = _ready(forward, arguments, leaves)
        return Task(run, lambda: ({"output": to_torch(run())}, truth(case)))
    if case.mode == "full":
        run = _ready(jax.jit(both), arguments, leaves, gradient)
        return Task(run, lambda: (values(*run()), truth(case)))
    output, backward = jax.jit(pull)(arguments, leaves)
    run = _ready(jax.jit(push), backward, gradient)
    return Task(run, lambda: (values(output, run()), truth(case)))


def _ready(function: Callable, *arguments: object) -> Callable[[], object]:
    """A call that returns when the results are there, not when they are promised."""
    return lambda: jax.block_until_ready(function(*arguments))
