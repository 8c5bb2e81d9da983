"""Suite `many`: 8 models of the lecture's sizes, one after the other and all at once.

`native-1` trains them one after the other on one thread, `many` is `train_many` with all workers.
On a GPU they are 132, as many as an H100 has multiprocessors, and the first is `native`. The time
is all models' together, their evaluation at the end included, divided by all their steps.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from pymlp.many import train_many
from pymlp.model import MLP
from pymlp.run_config import RunConfig

from . import device
from .harness import Builder, Case, Suite, Task, Values, measure_whole
from .loops import CHECKED_STEPS, LECTURE, dataset

MODELS, MODELS_ON_GPU = 8, 132
STEPS = 20_000
MOST_REPEATS = 5

TrainAll = Callable[[Sequence[RunConfig]], list[MLP]]


def _configs(case: Case, steps: int, **settings: Any) -> list[RunConfig]:
    sizes = {"n_embd": LECTURE.E, "n_hidden": LECTURE.H, "batch_size": case.batch_size}
    settings = {"engine": "native"} | sizes | settings
    seeds = range(_models())
    return [RunConfig(steps=steps, seed=seed, eval_every=0, **settings) for seed in seeds]


def _models() -> int:
    return MODELS_ON_GPU if device.is_gpu() else MODELS


def _one_after_another(configs: Sequence[RunConfig]) -> list[MLP]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        place = device.current()
        trainers = [config.trainer(dataset(LECTURE.T), device=place) for config in configs]
        for trainer in trainers:
            trainer.fit()
    finally:
        torch.set_num_threads(before)
    return [trainer.model for trainer in trainers]


def _at_once(configs: Sequence[RunConfig]) -> list[MLP]:
    results = train_many(configs, dataset(LECTURE.T), device=device.current())
    return [result.model for result in results]


def _task(case: Case, train: TrainAll) -> Task:
    def run() -> float:
        configs = _configs(case, STEPS)
        start = time.perf_counter()
        train(configs)
        return time.perf_counter() - start

    def check() -> tuple[Values, Values]:
        found = train(_configs(case, CHECKED_STEPS))
        exact = _configs(case, CHECKED_STEPS, dtype="float64", engine="reference")
        return _values(found), _values(_one_after_another(exact))

    return Task(run, check, _models() * STEPS)


def _values(models: Sequence[MLP]) -> Values:
    return {
        f"{name} of model {index}": value
        for index, model in enumerate(models)
        for name, value in model.state_dict().items()
    }


def cases(batch_sizes: list[int], modes: list[str]) -> list[Case]:
    """One, at the lecture's batch size."""
    return [Case("many", f"{_models()} models", "fit", 32, str(LECTURE))]


def builders(case: Case) -> dict[str, Builder]:
    """One after the other, and at once."""
    one = "native" if device.is_gpu() else "native-1"
    return {
        one: partial(_task, train=_one_after_another),
        "many": partial(_task, train=_at_once),
    }


SUITE = Suite(
    "many",
    cases,
    builders,
    tolerance=2e-5,
    measure=partial(measure_whole, most=MOST_REPEATS),
    on_gpu=True,
)
