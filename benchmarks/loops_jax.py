"""The training loop in JAX: many steps, batch draws included, as one jitted lax.scan."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from .harness import Case, Values
from .loops import LR, SEED, Sizes, initial_parameters, training_examples, truth
from .ops_jax import cross_entropy, to_jax, to_torch


def loss(parameters, Xb, Yb):
    p = parameters
    embedded = p["C"][Xb].reshape(Xb.shape[0], -1)
    hidden = jnp.tanh(embedded @ p["W1"] + p["b1"])
    return cross_entropy(hidden @ p["W2"] + p["b2"], Yb)


def draw(key, batch_size, n_examples):
    return jax.random.randint(key, (batch_size,), 0, n_examples)


@partial(
    jax.jit, static_argnames=("batch_size", "steps", "record"), donate_argnames=("parameters",)
)
def train(parameters, key, X, Y, batch_size, steps, record):
    """``steps`` steps: the parameters and the key to go on with, the losses if they are wanted."""
    keys = jax.random.split(key, steps + 1)

    def one(parameters, step_key):
        ix = draw(step_key, batch_size, X.shape[0])
        value, gradients = jax.value_and_grad(loss)(parameters, X[ix], Y[ix])
        parameters = jax.tree.map(lambda p, g: p - LR * g, parameters, gradients)
        return parameters, value if record else None

    parameters, losses = jax.lax.scan(one, parameters, keys[1:])
    return parameters, keys[0], losses


class JaxLoop:
    """A loop that carries its parameters and key from call to call."""

    def __init__(self, case: Case, record: bool = False) -> None:
        self._case, self._record = case, record
        examples = training_examples(Sizes.of(case))
        self._X, self._Y = to_jax(examples.tokens), to_jax(examples.targets)
        self._start = self._key = jax.random.key(SEED)
        self._parameters = self._initial()
        self._losses: np.ndarray | None = None

    def _initial(self):
        values = initial_parameters(Sizes.of(self._case))
        return {name: to_jax(value) for name, value in values.items()}

    def _train(self, parameters, key, steps: int):
        batch_size = self._case.batch_size
        return train(parameters, key, self._X, self._Y, batch_size, steps, self._record)

    def advance(self, steps: int) -> None:
        self._parameters, self._key, losses = jax.block_until_ready(
            self._train(self._parameters, self._key, steps)
        )
        self._losses = None if losses is None else np.asarray(losses)

    def check(self, steps: int) -> tuple[Values, Values]:
        """Parameters after ``steps`` steps, and the truth on the same draws made outside."""
        parameters, *_ = self._train(self._initial(), self._start, steps)
        keys = jax.random.split(self._start, steps + 1)[1:]
        draws = [draw(key, self._case.batch_size, self._X.shape[0]) for key in keys]
        values = {name: to_torch(value) for name, value in parameters.items()}
        return values, truth(self._case, [to_torch(ix).long() for ix in draws])
