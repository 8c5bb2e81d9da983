"""Suite `step` in JAX: the whole loop, batch draws included, as one jitted lax.scan."""

from functools import partial

import jax
import jax.numpy as jnp

from . import step
from .harness import Case, Task, Values
from .ops_jax import cross_entropy, to_jax, to_torch


def loss(parameters, Xb, Yb):
    p = parameters
    embedded = p["C"][Xb].reshape(Xb.shape[0], -1)
    hidden = jnp.tanh(embedded @ p["W1"] + p["b1"])
    return cross_entropy(hidden @ p["W2"] + p["b2"], Yb)


def draw(key, batch_size, n_examples):
    return jax.random.randint(key, (batch_size,), 0, n_examples)


@partial(jax.jit, static_argnames=("batch_size", "steps"), donate_argnames=("parameters",))
def train(parameters, key, X, Y, batch_size, steps):
    """``steps`` steps; returns the parameters and the key to go on with."""
    keys = jax.random.split(key, steps + 1)

    def one(parameters, step_key):
        ix = draw(step_key, batch_size, X.shape[0])
        gradients = jax.grad(loss)(parameters, X[ix], Y[ix])
        return jax.tree.map(lambda p, g: p - step.LR * g, parameters, gradients), None

    parameters, _ = jax.lax.scan(one, parameters, keys[1:])
    return parameters, keys[0]


def task(case: Case) -> Task:
    """Steps that carry their parameters and key from call to call."""
    examples, _ = step.training_examples()
    X, Y = to_jax(examples.tokens), to_jax(examples.targets)
    steps = step.steps_per_call(case.batch_size)
    start = jax.random.key(step.SEED)

    def initial():
        return {name: to_jax(value) for name, value in step.initial_parameters().items()}

    state = {"parameters": initial(), "key": start}

    def run():
        state["parameters"], state["key"] = jax.block_until_ready(
            train(**state, X=X, Y=Y, batch_size=case.batch_size, steps=steps)
        )

    def check() -> tuple[Values, Values]:
        # The program that is timed, `steps` steps long, against the same draws made outside it.
        parameters, _ = train(initial(), start, X, Y, case.batch_size, steps)
        keys = jax.random.split(start, steps + 1)[1:]
        indices = [to_torch(draw(key, case.batch_size, X.shape[0])).long() for key in keys]
        values = {name: to_torch(value) for name, value in parameters.items()}
        return values, step.truth(case.batch_size, indices)

    return Task(run, check, steps)
