"""The stream of batches: the lecture's, whatever is taken, given back or continued from."""

import pytest
import torch

from pymlp.batches import Batches


def take(batches, begin, count):
    """The indices of steps ``begin`` to ``begin + count``, in as many goes as it takes."""
    rows = []
    while len(rows) < count:
        rows += batches.at(begin + len(rows), count - len(rows))
    return torch.stack(rows) if rows else torch.empty(0)


@pytest.mark.parametrize("batch_size", [1, 5, 32, 20_000])
def test_batches_are_the_lectures_stream(batch_size):
    steps = 3 if batch_size > 1000 else 1200
    generator = torch.Generator().manual_seed(7)
    expected = [torch.randint(0, 182_625, (batch_size,), generator=generator) for _ in range(steps)]
    batches = Batches(182_625, batch_size, seed=7)
    drawn = []
    while len(drawn) < steps:
        drawn += batches.at(len(drawn), min(77, steps - len(drawn)))
    assert torch.equal(torch.stack(drawn), torch.stack(expected))


@pytest.mark.parametrize("taken", [0, 5, 512, 600])
def test_batches_continue_from_their_state(taken):
    batches = Batches(1000, 32, seed=7)
    take(batches, 0, taken)
    state = batches.state_dict(taken)
    other = Batches(1000, 32, seed=8)
    other.load_state_dict(state, taken)
    assert torch.equal(take(batches, taken, 3), take(other, taken, 3))
    assert batches.state_dict(taken + 3)["position"] == other.state_dict(taken + 3)["position"]


@pytest.mark.parametrize("position", [-5, 6, 2**40])
def test_a_position_beyond_the_steps_done_is_refused(position):
    batches = Batches(1000, 32, seed=7)
    state = batches.state_dict(0) | {"position": torch.tensor(position)}
    with pytest.raises(ValueError, match=f"from 0 to the number of steps done, 5, got {position}"):
        batches.load_state_dict(state, 5)


def test_steps_that_were_not_done_come_again():
    batches, expected = Batches(100, 4, seed=1), Batches(100, 4, seed=1)
    shown = batches.at(0, 9)
    assert torch.equal(take(batches, 4, 5), shown[4:])
    take(expected, 0, 9)
    assert torch.equal(take(batches, 9, 3), take(expected, 9, 3))


@pytest.mark.parametrize("taken", [0, 512])
def test_an_interrupted_draw_is_made_again(taken, monkeypatch):
    batches, expected = Batches(1000, 32, seed=7), Batches(1000, 32, seed=7)
    take(batches, 0, taken)
    take(expected, 0, taken)
    draw = torch.randint

    def interrupted(*args, **kwargs):
        draw(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "randint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        batches.at(taken, 1)
    monkeypatch.undo()
    state, unhurt = batches.state_dict(taken), expected.state_dict(taken)
    assert torch.equal(state["generator"], unhurt["generator"])
    assert torch.equal(take(batches, taken, 3), take(expected, taken, 3))
