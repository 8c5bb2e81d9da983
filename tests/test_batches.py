"""The stream of batches: the lecture's, whatever is taken, given back or continued from."""

import pytest
import torch

from pymlp.batches import Batches


@pytest.mark.parametrize("batch_size", [1, 5, 32, 20_000])
def test_batches_are_the_lectures_stream(batch_size):
    steps = 3 if batch_size > 1000 else 1200
    generator = torch.Generator().manual_seed(7)
    expected = [torch.randint(0, 182_625, (batch_size,), generator=generator) for _ in range(steps)]
    batches = Batches(182_625, batch_size, seed=7)
    drawn = []
    while len(drawn) < steps:
        drawn += batches.take(min(77, steps - len(drawn)))
    assert torch.equal(torch.stack(drawn), torch.stack(expected))


@pytest.mark.parametrize("taken", [0, 5, 512, 600])
def test_batches_continue_from_their_state(taken):
    def take(batches, count):
        while count:
            count -= len(rows := batches.take(count))
        return rows

    batches = Batches(1000, 32, seed=7)
    if taken:
        take(batches, taken)
    state = batches.state_dict()
    other = Batches(1000, 32, seed=8)
    other.load_state_dict(state)
    assert torch.equal(batches.take(3), other.take(3))
    assert batches.state_dict()["position"] == other.state_dict()["position"]


def test_steps_given_back_are_drawn_again():
    batches, expected = Batches(100, 4, seed=1), Batches(100, 4, seed=1)
    drawn = batches.take(9)
    batches.give_back(5)
    assert torch.equal(batches.take(5), drawn[4:])
    expected.take(9)
    assert torch.equal(batches.take(3), expected.take(3))
