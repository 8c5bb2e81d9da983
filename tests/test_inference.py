"""Losses, single logits and draws without PyTorch between the tokens, for every kind of model."""

import pytest
import torch
import torch.nn.functional as F

from pymlp import MLP, MLPConfig, inference

MODELS = {
    "characters": MLPConfig(27, 3, 10, 60),
    "words": MLPConfig(1500, 2, 5, 20),
    "words, direct": MLPConfig(1500, 2, 5, 20, direct=True),
    "direct alone": MLPConfig(30, 3, 5, 0, direct=True),
}


@pytest.fixture(params=MODELS)
def case(request):
    torch.manual_seed(1)
    config = MODELS[request.param]
    model = MLP(config).double()
    tokens = torch.randint(config.vocab_size, (5000, config.block_size))
    targets = torch.randint(config.vocab_size, (5000,))
    assert inference.is_native(model)
    return model, tokens, targets


def test_values_of_tokens_are_the_models(case):
    model, tokens, targets = case
    with torch.no_grad():
        logits = model(tokens)
    losses = F.cross_entropy(logits, targets, reduction="none")
    chosen = logits.gather(1, targets[:, None])[:, 0]
    for found, expected in (
        (inference.token_losses(model, tokens, targets), losses),
        (inference.token_logits(model, tokens, targets), chosen),
        (inference.log_normalisers(model, tokens), logits.logsumexp(1)),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_likeliest_token_is_the_models(case):
    model, tokens, _ = case
    for context in tokens[:20].tolist():
        (line,) = inference.draw_ids(
            model,
            1,
            prefix=context,
            max_length=len(context) + 1,
            temperature=0.0,
            top_k=None,
            seed=0,
        )
        with torch.no_grad():
            likeliest = int(model(torch.tensor(context)).argmax())
        assert line == [*context, *([likeliest] if likeliest else [])]  # 0 ends a line
