"""The exact softmax, the sampled softmax and noise-contrastive estimation: which trains better?

`python -m benchmarks.sampled brown.txt PLAN ...` trains one network over and over on equal terms:
first parameters, batches, dropout, AdamW with decay of the weights, clipping, and a cosine over the
steps of the plan. Only what a method leaves out of a step differs: the rows of the output layer
that are no candidates (`nce` updates them all).

`exact` and `sampled-K` are the native engine (`TrainConfig.sampled_softmax`); tests hold both
against the rule in plain PyTorch. `nce-K` is plain PyTorch (Mnih & Teh, 2012, with log Z = 0), K
words of noise from the same distribution, shared by the batch: its products are a seventh or less
of the exact ones, and most of its time is AdamW's fused kernel. It is checked against the binary
cross-entropy of every pair first.

A row has the seconds that the steps took, without the evaluation, and the perplexity of the exact
softmax on dev.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymlp import MLP, PRESETS, RunConfig, evaluate
from pymlp.batches import Batches
from pymlp.data import DataConfig, Dataset, load
from pymlp.dropout import dropout_masks

from . import machine, results

# Bengio et al.'s network without direct connections, by the preset's settings; and the preset.
NETWORKS: dict[str, dict[str, Any]] = {
    "MLP9": {"block_size": 4, "n_embd": 30, "n_hidden": 100, "dropout": 0.0},
    "word-best": {},
}


class Plan(NamedTuple):
    """A method, its words of noise (0: none) and the steps to train for."""

    method: str
    noise: int
    steps: int

    @staticmethod
    def parse(text: str) -> Plan:
        """ "exact:1632", "sampled-2048:1632" or "nce-2048:1632"."""
        name, _, steps = text.partition(":")
        method, _, noise = name.partition("-")
        known = method == "exact" if noise == "" else method in ("sampled", "nce")
        if not (known and steps.isdigit() and (noise or "0").isdigit()):
            raise argparse.ArgumentTypeError(f"{text!r} is not like exact:1632 or sampled-512:1632")
        return Plan(method, int(noise or 0), int(steps))


@dataclass(frozen=True)
class Row:
    """A network trained.

    Attributes:
        method, noise, steps: of the plan.
        seconds: the steps took.
        dev: perplexity.
        others: cores that other processes kept busy meanwhile, None where unknown.
    """

    method: str
    noise: int
    steps: int
    seconds: float
    dev: float
    others: float | None


def nce_loss(
    h: Tensor, targets: Tensor, output: nn.Linear, words: Tensor, log_kq: Tensor
) -> Tensor:
    """Mean loss of telling the targets (B,) of hidden units (B, H) from ``words`` (k,) of noise.

    log_kq: (V,), logarithm of how often the noise is expected to have each word.
    """
    weight, bias = F.embedding(targets, output.weight), output.bias - log_kq
    true = (h * weight).sum(1) + bias[targets]
    noise = h @ F.embedding(words, output.weight).T + bias[words]
    return F.softplus(-true).mean() + F.softplus(noise).sum(1).mean()


def check_nce() -> None:
    """Raise AssertionError unless the loss is the sum of the pairs' binary cross-entropies."""
    torch.manual_seed(0)
    h, output, log_kq = torch.randn(3, 4), nn.Linear(4, 9), torch.randn(9)
    targets, words = torch.randint(0, 9, (3,)), torch.randint(0, 9, (5,))
    logits = output(h) - log_kq
    total = sum(
        F.binary_cross_entropy_with_logits(logits[b, word], torch.tensor(label))
        for b in range(3)
        for word, label in [(targets[b], 1.0), *((word, 0.0) for word in words)]
    )
    torch.testing.assert_close(nce_loss(h, targets, output, words, log_kq), total / 3)


def train_native(config: RunConfig, data: Dataset) -> tuple[MLP, float]:
    """The model and the seconds that its steps took."""
    trainer = config.trainer(data)
    start = time.perf_counter()
    while trainer.step < config.steps:
        trainer.stepper.run(config.steps)
    return trainer.model, time.perf_counter() - start


def train_nce(config: RunConfig, data: Dataset, k: int) -> tuple[MLP, float]:
    """The same by noise-contrastive estimation."""
    model = config.build_model(data)
    biases = [p for name, p in model.named_parameters() if name.endswith(".bias")]
    weights = [p for name, p in model.named_parameters() if not name.endswith(".bias")]
    groups = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
    decay = {} if config.weight_decay is None else {"weight_decay": config.weight_decay}
    optimizer = torch.optim.AdamW(groups, betas=config.betas, eps=config.eps, fused=True, **decay)
    shares = data.train.counts(len(data.vocabulary)).double().clamp(min=1) ** 0.75
    below, log_kq = shares.cumsum(0), (k * shares / shares.sum()).log().float()
    generator = torch.Generator().manual_seed(config.seed)
    assert not config.decay_biases
    assert config.label_smoothing == config.z_loss == 0.0
    batches = Batches(len(data.train), config.batch_size, config.seed)
    start = time.perf_counter()
    for step in range(config.steps):
        (rows,) = batches.at(step, 1)
        tokens, targets = data.train.take(rows)
        masks = dropout_masks(model.config, config, step, below.float())
        x = F.embedding(tokens, model.embedding.weight).flatten(1)
        h = torch.tanh(model.hidden(x if masks is None else x * masks.input))
        h = h if masks is None else h * masks.hidden
        at = torch.rand(k, dtype=torch.float64, generator=generator) * below[-1]
        words = torch.searchsorted(below, at, right=True).clamp(max=len(below) - 1)
        optimizer.zero_grad()
        nce_loss(h, targets, model.output, words, log_kq).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm or math.inf)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate(step)
        optimizer.step()
    return model, time.perf_counter() - start


def train(plan: Plan, config: RunConfig, data: Dataset) -> Row:
    """Carry out a plan."""
    before, start = machine.other_cpu_seconds(), time.perf_counter()
    config = dataclasses.replace(config, steps=plan.steps, eval_every=0)
    if plan.method == "nce":
        model, seconds = train_nce(config, data, plan.noise)
    else:
        config = dataclasses.replace(config, sampled_softmax=plan.noise or None)
        model, seconds = train_native(config, data)
    others = machine.other_cores(before, time.perf_counter() - start)
    return Row(*plan, seconds, math.exp(evaluate(model, data.dev)), others)


def main() -> None:
    """Check, then train what the plans say, one after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sampled", description=(__doc__ or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("data", help="text, one sentence a line")
    add("plans", nargs="+", type=Plan.parse, metavar="METHOD-K:STEPS",
        help="exact:1632, sampled-2048:1632, nce-2048:1632, ...")  # fmt: skip
    add("--network", default="MLP9", choices=NETWORKS, help="default: MLP9")
    add("--sparse-embedding", action="store_true", help="of the methods of the engine")
    add("--out", type=Path, metavar="FILE.json", help="written after every plan")
    chosen = parser.parse_args()
    check_nce()
    preset = PRESETS["word-best"]
    settings = {**preset.model, **preset.train, "init": preset.init, **NETWORKS[chosen.network]}
    settings["sparse_embedding"] = chosen.sparse_embedding
    data = load(chosen.data, settings.pop("block_size"), DataConfig(**preset.data))
    report: dict[str, Any] = {"machine": asdict(machine.describe()), "network": chosen.network}
    report |= {"train": settings, "rows": []}
    for plan in chosen.plans:
        row = train(plan, RunConfig(**settings), data)
        print(row, flush=True)
        report["rows"].append(asdict(row))
        if chosen.out is not None:
            results.write(chosen.out, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
