"""Whether a sampled softmax or noise-contrastive estimation trains a word model better in its time.

`python -m benchmarks.sampled brown.txt --out FILE.json` trains one network by the engine's exact
softmax and by estimates from k words a step, on equal terms: first parameters, batches, dropout's
rate, AdamW with decay of the weights, clipping, the schedule over the steps there are. The
estimates are plain PyTorch: their products are a seventh or less of the engine's, and what remains
is mostly AdamW over all parameters, by torch's fused kernel. Each row is a number of steps, the
seconds they took, evaluation not counted, and the perplexity of the whole softmax on dev.

Noise words are drawn from the unigram distribution of train to the power 0.75, k with replacement
for a step, shared by its batch. `sampled`: cross-entropy among the target and the noise, logits
less the logarithm of a word's expected number among k, noise equal to the target left out (Jean et
al., 2015). `nce`: k binary decisions between data and noise (Mnih & Teh, 2012), with log Z = 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymlp import PRESETS, MLP, RunConfig, evaluate
from pymlp.batches import Batches
from pymlp.data import DataConfig, Dataset, load

from . import machine, results

POWER = 0.75

# The loss of hidden units (B, H), targets (B,) and a weight and bias, given noise.
Loss = Callable[[Tensor, Tensor, nn.Module, "Noise"], Tensor]


class Noise:
    """k words, drawn anew for each step.

    Args:
        counts: (V,) of train.
        k: words drawn.
    """

    def __init__(self, counts: Tensor, k: int) -> None:
        shares = counts.double() ** POWER
        self._below = (shares / shares.sum()).cumsum(0)
        self._below[-1] = 1.0
        self.log_expected = (shares / shares.sum() * k).log().float()
        self._k = k
        self._generator = torch.Generator().manual_seed(1)

    def draw(self) -> Tensor:
        uniform = torch.rand(self._k, dtype=torch.float64, generator=self._generator)
        return torch.searchsorted(self._below, uniform, right=True)


def _logits(h: Tensor, targets: Tensor, output: nn.Module, noise: Noise) -> tuple[Tensor, ...]:
    """Of the targets (B,) and of the noise (B, k), less their expected numbers; the noise (k,)."""
    words = noise.draw()
    weight = F.embedding(torch.cat([targets, words]), output.weight)
    bias = output.bias[torch.cat([targets, words])]
    shift = noise.log_expected[torch.cat([targets, words])]
    of_targets, of_words = weight.split([len(targets), len(words)])
    moved = (bias - shift).split([len(targets), len(words)])
    return (h * of_targets).sum(1) + moved[0], h @ of_words.T + moved[1], words


def sampled_softmax(h: Tensor, targets: Tensor, output: nn.Module, noise: Noise) -> Tensor:
    """Mean cross-entropy among each target and the noise."""
    true, others, words = _logits(h, targets, output, noise)
    others = others.masked_fill(words == targets[:, None], -math.inf)
    logits = torch.cat([true[:, None], others], dim=1)
    return F.cross_entropy(logits, torch.zeros_like(targets))


def nce(h: Tensor, targets: Tensor, output: nn.Module, noise: Noise) -> Tensor:
    """Mean loss of telling each target from k words of noise."""
    true, others, _ = _logits(h, targets, output, noise)
    return F.softplus(-true).mean() + F.softplus(others).sum(1).mean()


@dataclass(frozen=True)
class Row:
    """A network trained.

    Attributes:
        method: "engine", "sampled" or "nce".
        k: noise words of a step, 0 for the engine.
        steps: of training.
        seconds: they took.
        dev: perplexity.
        others: cores that other processes kept busy meanwhile, None where unknown.
    """

    method: str
    k: int
    steps: int
    seconds: float
    dev: float
    others: float | None


def train_engine(config: RunConfig, data: Dataset) -> tuple[MLP, float]:
    trainer = dataclasses.replace(config, eval_every=0, eval_train=False).trainer(data)
    start = time.perf_counter()
    while trainer.step < config.steps:
        trainer.stepper.run(config.steps)
    return trainer.model, time.perf_counter() - start


def train_estimate(config: RunConfig, data: Dataset, loss: Loss, noise: Noise) -> tuple[MLP, float]:
    model = config.build_model(data)
    biases = [p for name, p in model.named_parameters() if name.endswith(".bias")]
    weights = [p for name, p in model.named_parameters() if not name.endswith(".bias")]
    optimizer = torch.optim.AdamW(
        [{"params": weights}, {"params": biases, "weight_decay": 0.0}],
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )
    batches = Batches(len(data.train), config.batch_size, config.seed)
    start = time.perf_counter()
    for step in range(config.steps):
        (rows,) = batches.peek(1)
        batches.advance(1)
        tokens, targets = data.train.take(rows)
        x = F.dropout(F.embedding(tokens, model.embedding.weight).flatten(1), config.dropout)
        h = F.dropout(torch.tanh(model.hidden(x)), config.dropout)
        optimizer.zero_grad()
        loss(h, targets, model.output, noise).backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate(step)
        optimizer.step()
    return model, time.perf_counter() - start


class _EveryWord(Noise):
    def draw(self) -> Tensor:
        return torch.arange(len(self.log_expected))


def check(vocab_size: int) -> None:
    """Raises AssertionError unless the sampled softmax of every word is the softmax."""
    torch.manual_seed(0)
    h, output = torch.randn(8, 16, dtype=torch.float64), nn.Linear(16, vocab_size).double()
    targets = torch.randint(0, vocab_size, (8,))
    found = sampled_softmax(h, targets, output, _EveryWord(torch.ones(vocab_size), vocab_size))
    torch.testing.assert_close(found, F.cross_entropy(output(h), targets), rtol=1e-6, atol=0)


METHODS: dict[str, Loss] = {"sampled": sampled_softmax, "nce": nce}

# Of Bengio et al.'s rows the one without direct connections, and the preset.
NETWORKS: dict[str, dict[str, Any]] = {
    "MLP9": {"block_size": 4, "n_embd": 30, "n_hidden": 100, "dropout": 0.0},
    "word-best": {},
}


class Plan(NamedTuple):
    """A run: "engine:1632" or "sampled-512:1632"."""

    method: str
    k: int
    steps: int

    @staticmethod
    def parse(text: str) -> Plan:
        try:
            name, steps = text.split(":")
            method, _, k = name.partition("-")
            plan = Plan(method, int(k or 0), int(steps))
        except ValueError:
            plan = Plan("", 0, 0)
        if plan.steps < 1 or not (plan[:2] == ("engine", 0) or plan.method in METHODS and plan.k):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not like engine:1632 or sampled-512:1632"
            )
        return plan


def train(plan: Plan, config: RunConfig, data: Dataset) -> Row:
    config = dataclasses.replace(config, steps=plan.steps)
    before, start = machine.other_cpu_seconds(), time.perf_counter()
    if plan.method == "engine":
        model, seconds = train_engine(config, data)
    else:
        noise = Noise(data.train.counts(len(data.vocabulary)), plan.k)
        model, seconds = train_estimate(config, data, METHODS[plan.method], noise)
    others = machine.other_cores(before, time.perf_counter() - start)
    return Row(*plan, seconds, math.exp(evaluate(model, data.dev)), others)


def main() -> None:
    """Check, then train what the plans say, one after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sampled", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("data", help="text, one sentence a line")
    parser.add_argument("plans", nargs="+", type=Plan.parse, metavar="METHOD-K:STEPS",
        help="engine:1632, sampled-512:1632, nce-512:1632, ...")  # fmt: skip
    parser.add_argument("--network", default="MLP9", choices=NETWORKS)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="written after every run")
    chosen = parser.parse_args()
    preset = PRESETS["word-best"]
    settings = {**preset.model, **preset.train, "init": preset.init, **NETWORKS[chosen.network]}
    data = load(chosen.data, settings.pop("block_size"), DataConfig(**preset.data))
    config = RunConfig(**settings)
    check(len(data.vocabulary))
    report = {"machine": asdict(machine.describe()), "network": settings, "rows": []}
    for plan in chosen.plans:
        row = train(plan, config, data)
        print(row, flush=True)
        report["rows"].append(asdict(row))
        if chosen.out is not None:
            results.write(chosen.out, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
