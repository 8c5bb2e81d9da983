"""A backward pass as part of a graph: again, accumulated, in part, shared, and never in place."""

import pytest
import torch
from ops_testing import OPS, assert_same, make_case, plain, random_like, results
from torch.autograd import grad

from pymlp import functional

pytestmark = pytest.mark.usefixtures("one_thread", "device")

every_op = pytest.mark.parametrize("op", OPS)


@every_op
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_second_backward_gives_the_same_gradients(op, dtype):
    case = make_case(op).to(dtype)
    leaves = case.leaves()
    output = case.run(functional, *leaves)
    first = grad(output, leaves, torch.ones_like(output), retain_graph=True)
    kept = [g.clone() for g in first]
    for g in first:
        g.mul_(7)  # must not reach what the next backward computes
    for _ in range(2):
        again = grad(output, leaves, torch.ones_like(output), retain_graph=True)
        torch.testing.assert_close(list(again), kept, rtol=0, atol=0)
    scaled = grad(output, leaves, torch.full_like(output, -2))  # a power of two: exactly double
    torch.testing.assert_close([g / -2 for g in scaled], kept, rtol=0, atol=0)


@every_op
def test_third_call_without_retain_graph_raises_as_in_torch(op):
    case = make_case(op)
    leaves = case.leaves()
    output = case.run(functional, *leaves).sum()
    grad(output, leaves)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        grad(output, leaves)


@every_op
def test_backward_accumulates_into_grad(op):
    case = make_case(op)
    leaves = case.leaves()
    expected = [2 * g for g in grad(case.run(functional, *leaves).sum(), leaves)]
    for _ in range(2):
        case.run(functional, *leaves).sum().backward()
    torch.testing.assert_close([leaf.grad for leaf in leaves], expected)


@every_op
def test_gradients_for_some_parameters_only(op):
    case = make_case(op)
    everything = results(functional, case)
    for wanted in case.names:
        leaves = case.leaves()
        for name, leaf in zip(case.names, leaves, strict=True):
            leaf.requires_grad_(name == wanted)
        output = case.run(functional, *leaves)
        grad_output = random_like(output)
        output.backward(grad_output)
        for name, leaf in zip(case.names, leaves, strict=True):
            if name == wanted:
                assert torch.equal(leaf.grad, everything["d" + name])
            else:
                assert leaf.grad is None


def test_one_tensor_in_two_places_gets_the_sum_of_both_gradients():
    case = make_case("mlp_cross_entropy", V=11, E=6, H=6)
    for create_graph in (False, True):
        found = []
        for module in (functional, plain):
            table = case.parameters["embedding"].clone().requires_grad_()
            loss = case.run(module, embedding=table, output_weight=table)
            (first,) = grad(loss, table, create_graph=create_graph)
            found.append([first])
            if create_graph:
                found[-1] += grad(first.square().sum(), table)
        torch.testing.assert_close(found[0], found[1])


@every_op
def test_inputs_are_never_modified(op):
    case = make_case(op)
    leaves = case.leaves()
    tensors = [*case.ids.values(), *leaves]
    before = [(t._version, t.detach().clone()) for t in tensors]
    output = case.run(functional, *leaves)
    grad_output = torch.full_like(output, 0.7)
    version = grad_output._version
    grad(output, leaves, grad_output)
    assert grad_output._version == version
    assert grad_output.eq(0.7).all()
    for tensor, (version, value) in zip(tensors, before, strict=True):
        assert tensor._version == version
        assert torch.equal(tensor, value)


@every_op
def test_a_parameter_modified_before_backward_raises_or_does_not_matter(op):
    case = make_case(op)
    expected = results(functional, case)
    for name in case.names:
        leaves = case.leaves()
        output = case.run(functional, *leaves)
        grad_output = random_like(output)
        with torch.no_grad():
            leaves[case.names.index(name)].add_(1)
        try:
            gradients = grad(output, leaves, grad_output)
        except RuntimeError:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                grad(output, leaves, grad_output)
        else:  # those that the forward has computed: of the old value
            for other, gradient in zip(case.names, gradients, strict=True):
                assert torch.equal(gradient, expected["d" + other])


def test_a_hidden_layer_modified_before_backward_raises():
    case = make_case("embed_linear_tanh")
    hidden = case.run(functional, *case.leaves())
    with torch.no_grad():
        hidden.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        hidden.sum().backward()


@every_op
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_same_results_with_anomaly_detection_and_saved_tensor_hooks(op):
    case = make_case(op)
    expected = results(functional, case)
    with torch.autograd.detect_anomaly(check_nan=True):
        assert_same(results(functional, case), expected)
    with torch.autograd.graph.save_on_cpu():
        assert_same(results(functional, case), expected)
