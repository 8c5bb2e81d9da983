"""torch.func: grad, vmap, vmap(grad), jacrev, jacfwd, hessian and functional_call."""

import pytest
import torch
from ops_testing import OPS, make_case, plain
from torch.func import functional_call, grad, grad_and_value, hessian, jacfwd, jacrev, vmap

import pymlp
from pymlp import functional

pytestmark = pytest.mark.usefixtures("one_thread", "device")

every_op = pytest.mark.parametrize("op", OPS)


def scalar(case, module):
    return lambda *parameters: case.run(module, *parameters).square().sum()


def everything(case):
    return tuple(range(len(case.names)))


@every_op
def test_grad(op):
    case = make_case(op)
    for transform in (grad, grad_and_value):
        found = transform(scalar(case, functional), everything(case))(*case.leaves())
        expected = transform(scalar(case, plain), everything(case))(*case.leaves())
        torch.testing.assert_close(found, expected)


@every_op
def test_grad_of_grad(op):
    case = make_case(op)

    def norm(module):
        first = grad(scalar(case, module), everything(case))
        return lambda *parameters: sum(g.square().sum() for g in first(*parameters))

    found = grad(norm(functional), everything(case))(*case.leaves())
    expected = grad(norm(plain), everything(case))(*case.leaves())
    torch.testing.assert_close(found, expected)


@every_op
@pytest.mark.parametrize("transform", [jacrev, jacfwd, hessian])
def test_jacobians(op, transform):
    case = make_case(op, N=3, T=2, V=5, E=2, H=3)
    found = transform(lambda *p: case.run(functional, *p), everything(case))(*case.leaves())
    expected = transform(lambda *p: case.run(plain, *p), everything(case))(*case.leaves())
    torch.testing.assert_close(found, expected)


@every_op
def test_vmap_over_ids(op):
    # Five batches of ids with the same parameters, one after the other and at once.
    cases = [make_case(op, seed=seed) for seed in range(5)]
    parameters = cases[0].leaves()
    names = list(cases[0].ids)
    stacked = [torch.stack([case.ids[name] for case in cases]) for name in names]

    def call(*ids):
        return cases[0].run(functional, *parameters, **dict(zip(names, ids, strict=True)))

    singly = torch.stack([call(*ids) for ids in zip(*stacked, strict=True)])
    torch.testing.assert_close(vmap(call)(*stacked), singly)


@every_op
def test_vmap_over_stacked_parameters(op):
    # An ensemble of five models and the same ids.
    members = [make_case(op, seed=seed).leaves() for seed in range(5)]
    case = make_case(op)
    stacked = [torch.stack(tensors) for tensors in zip(*members, strict=True)]
    found = vmap(lambda *p: case.run(functional, *p))(*stacked)
    torch.testing.assert_close(found, torch.stack([case.run(plain, *p) for p in members]))


@pytest.mark.parametrize("op", [op for op in OPS if op != "cross_entropy"])
def test_gradients_of_every_example(op):
    case = make_case(op, N=6)
    rows = case.ids | {k: v for k, v in case.parameters.items() if k == "input"}
    shared = {k: v for k, v in case.parameters.items() if k not in rows}

    def loss(module):
        def one(shared, rows):
            rows = {name: value[None] for name, value in rows.items()}
            return getattr(module, op)(**rows, **shared).sum()

        return one

    found = vmap(grad(loss(functional)), (None, 0))(shared, rows)
    singly = [grad(loss(plain))(shared, {k: v[n] for k, v in rows.items()}) for n in range(6)]
    for name in shared:
        torch.testing.assert_close(found[name], torch.stack([g[name] for g in singly]))


def test_gradients_of_every_row_of_logits():
    case = make_case("cross_entropy", N=6)
    input, target = case.parameters["input"], case.ids["target"]
    found = vmap(grad(lambda x, t: functional.cross_entropy(x[None], t[None])))(input, target)
    expected = torch.softmax(input, -1)
    expected[torch.arange(6), target] -= 1
    torch.testing.assert_close(found, expected)


def test_functional_call():
    torch.manual_seed(0)
    model = pymlp.MLP(pymlp.MLPConfig(vocab_size=11, n_embd=4, n_hidden=9))
    tokens, targets = torch.randint(11, (7, 3)), torch.randint(11, (7,))
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(parameters):
        return pymlp.cross_entropy(functional_call(model, parameters, tokens), targets)

    found = grad(loss)(parameters)
    model.loss(tokens, targets).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)
