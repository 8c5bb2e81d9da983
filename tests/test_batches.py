"""The stream of batches: the lecture's, whatever is taken, given back or continued from."""

import pytest
import torch

from pymlp.batches import Batches


def take(batches, count):
    """The last of the next ``count`` steps that are drawn together."""
    rows = torch.empty(0)
    while count:
        rows = batches.peek(count)
        batches.advance(len(rows))
        count -= len(rows)
    return rows


@pytest.mark.parametrize("batch_size", [1, 5, 32, 20_000])
def test_batches_are_the_lectures_stream(batch_size):
    steps = 3 if batch_size > 1000 else 1200
    generator = torch.Generator().manual_seed(7)
    expected = [torch.randint(0, 182_625, (batch_size,), generator=generator) for _ in range(steps)]
    batches = Batches(182_625, batch_size, seed=7)
    drawn = []
    while len(drawn) < steps:
        rows = batches.peek(min(77, steps - len(drawn)))
        batches.advance(len(rows))
        drawn += rows
    assert torch.equal(torch.stack(drawn), torch.stack(expected))


@pytest.mark.parametrize("taken", [0, 5, 512, 600])
def test_batches_continue_from_their_state(taken):
    batches = Batches(1000, 32, seed=7)
    take(batches, taken)
    state = batches.state_dict()
    other = Batches(1000, 32, seed=8)
    other.load_state_dict(state)
    assert torch.equal(take(batches, 3), take(other, 3))
    assert batches.state_dict()["position"] == other.state_dict()["position"]


def test_steps_that_were_not_done_come_again():
    batches, expected = Batches(100, 4, seed=1), Batches(100, 4, seed=1)
    shown = batches.peek(9)
    batches.advance(4)
    assert torch.equal(take(batches, 5), shown[4:])
    take(expected, 9)
    assert torch.equal(take(batches, 3), take(expected, 3))


@pytest.mark.parametrize("taken", [0, 512])
def test_an_interrupted_draw_is_made_again(taken, monkeypatch):
    batches, expected = Batches(1000, 32, seed=7), Batches(1000, 32, seed=7)
    take(batches, taken)
    take(expected, taken)
    draw = torch.randint

    def interrupted(*args, **kwargs):
        draw(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "randint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        batches.peek(1)
    monkeypatch.undo()
    assert torch.equal(batches.state_dict()["generator"], expected.state_dict()["generator"])
    assert torch.equal(take(batches, 3), take(expected, 3))
