"""Scores: against cross-entropies, against themselves token by token, and with unknown tokens."""

import gzip
import json
import math
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as F

from pymlp import MLP, MLPConfig, Scorer, data, log_z, reference, score, scoring
from pymlp.cli import main
from pymlp.data import Dataset, Vocabulary
from pymlp.inference import token_losses

LINES = ["emma", "", "ab", "e", "zoe", "a" * 50]
CHARACTERS = Vocabulary((".", *"abemoz"))


def make_model(vocabulary, dtype=torch.float64, kind=MLP, block_size=3):
    torch.manual_seed(3)
    model = kind(MLPConfig(len(vocabulary), block_size, n_embd=4, n_hidden=21))
    with torch.no_grad():
        model.output.weight.mul_(20)  # far from uniform
    return model.to(dtype)


def by_hand(model, vocabulary, line):
    examples = data.examples([line], vocabulary, model.config.block_size)
    logits = model(examples.tokens)
    return -F.cross_entropy(logits.double(), examples.targets, reduction="sum").item()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [MLP, reference.MLP])
def test_a_line_scores_its_cross_entropy(dtype, kind):
    model = make_model(CHARACTERS, dtype, kind)
    found = score(model, CHARACTERS, LINES)
    for line, result in zip(LINES, found, strict=True):
        assert result.log_prob == pytest.approx(
            by_hand(model, CHARACTERS, line), rel=1e-10 if dtype == torch.float64 else 1e-4
        )
        assert (result.n_tokens, result.n_oov) == (len(line) + 1, 0)
        assert result.bits == pytest.approx(result.log_prob / math.log(2))
        assert result.perplexity == pytest.approx(math.exp(-result.log_prob / (len(line) + 1)))


@pytest.mark.parametrize(("n", "block_size", "n_hidden"), [(1, 1, 1), (5000, 2, 40), (9, 7, 16)])
def test_native_losses_are_torchs(n, block_size, n_hidden):
    g = torch.Generator().manual_seed(0)
    tokens, targets = (torch.randint(0, 9, s, generator=g) for s in ((n, block_size), (n,)))
    model = MLP(MLPConfig(9, block_size, n_embd=3, n_hidden=n_hidden)).double()
    expected = F.cross_entropy(model(tokens), targets, reduction="none")
    torch.testing.assert_close(token_losses(model, tokens, targets), expected.detach())


def test_lines_that_are_scored_together_do_not_meet():
    model = make_model(CHARACTERS)
    together = score(model, CHARACTERS, LINES * 3)
    assert together == [score(model, CHARACTERS, [line])[0] for line in LINES] * 3


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("line", [*LINES, "emxma", "xemma", "emmax", "xx"])
def test_full_scores_add_up(line, bos, eos):
    model = make_model(CHARACTERS)
    (total,) = score(model, CHARACTERS, [line], bos=bos, eos=eos)
    tokens = list(Scorer(model, CHARACTERS).full_scores(line, bos, eos))
    assert sum(token.log_prob for token in tokens) == pytest.approx(total.log_prob)
    assert sum(token.oov for token in tokens) == total.n_oov == line.count("x")
    assert sum(not token.oov for token in tokens) == total.n_tokens
    if bos:
        assert "".join(token.token for token in tokens) == line + ("." if eos else "")


@pytest.mark.parametrize("line", ["emma", "", "emxma"])
def test_states_follow_the_chain_rule(line):
    scorer = Scorer(make_model(CHARACTERS), CHARACTERS)
    state, total = scorer.begin_state(), 0.0
    for token in [*line, None]:
        log_prob, state = scorer.base_score(state, token)
        total += log_prob
    assert total == pytest.approx(scorer.score(line))


def test_unknown_characters_are_left_out():
    model = make_model(CHARACTERS)
    (found,) = score(model, CHARACTERS, ["emxma"])
    expected = score(model, CHARACTERS, ["em"], eos=False) + score(model, CHARACTERS, ["ma"])
    assert found.log_prob == pytest.approx(sum(part.log_prob for part in expected))
    assert (found.n_tokens, found.n_oov) == (5, 1)
    assert score(model, CHARACTERS, ["xx"], eos=False)[0] == (0.0, 0, 2)
    assert math.isnan(score(model, CHARACTERS, ["xx"], eos=False)[0].perplexity)


def test_without_bos_the_first_tokens_are_context():
    model = make_model(CHARACTERS)
    whole = list(Scorer(model, CHARACTERS).full_scores("emma"))
    (found,) = score(model, CHARACTERS, ["emma"], bos=False)
    assert found == (pytest.approx(sum(token.log_prob for token in whole[3:])), 2, 0)
    assert score(model, CHARACTERS, ["em"], bos=False)[0] == (0.0, 0, 0)


def test_words_have_a_token_for_the_unknown():
    vocabulary = Vocabulary.words([["a", "b"], ["a", "b", "c"]], min_count=2)
    model = make_model(vocabulary, block_size=2)
    found, same = score(model, vocabulary, ["a d b", ["a", "<unk>", "b"]])
    assert (found.n_tokens, found.n_oov) == (4, 1)
    assert found.log_prob == same.log_prob
    tokens = list(Scorer(model, vocabulary).full_scores("a d b"))
    assert [token.oov for token in tokens] == [False, True, False, False]
    assert all(token.log_prob < 0 for token in tokens)


def test_a_hopeless_model_has_an_infinite_perplexity():
    model = make_model(CHARACTERS)
    with torch.no_grad():
        model.output.bias.copy_(torch.tensor([0.0, 1e4, 0, 0, 0, 0, 0]))
    (found,) = score(model, CHARACTERS, ["emma"])
    assert math.isfinite(found.log_prob)
    assert found.perplexity == math.inf


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", [MLP, reference.MLP])
@pytest.mark.parametrize("direct", [False, True])
def test_unnormalised_scores_are_logits(dtype, kind, direct):
    torch.manual_seed(3)
    sizes = MLPConfig(len(CHARACTERS), 3, n_embd=4, n_hidden=0 if direct else 21, direct=direct)
    model = kind(sizes).to(dtype)
    found = score(model, CHARACTERS, LINES, normalized=False)
    normalisers = []
    for line, result in zip(LINES, found, strict=True):
        examples = data.examples([line], CHARACTERS, 3)
        logits = model(examples.tokens).double()
        expected = logits.gather(1, examples.targets[:, None]).sum().item()
        # The model rounds its logits, all below 1, to 8 bits.
        rounding = 0.0 if dtype == torch.float64 else 2**-8 * (len(line) + 1)
        assert result.log_prob == pytest.approx(expected, rel=1e-10, abs=rounding)
        assert result.n_tokens == len(line) + 1
        normalisers += logits.logsumexp(1).tolist()
    off = log_z(model, CHARACTERS, LINES)
    assert off.n_tokens == len(normalisers) == 66
    assert off.mean == pytest.approx(sum(normalisers) / 66, rel=1e-3)
    assert off.largest == pytest.approx(max(map(abs, normalisers)), rel=1e-3)
    assert log_z(model, CHARACTERS, LINES, most=20).n_tokens == 17  # every fourth
    assert log_z(model, CHARACTERS, []).n_tokens == 0
    with pytest.raises(ValueError, match="most must be at least 1, got 0"):
        log_z(model, CHARACTERS, LINES, most=0)


def test_a_scorer_may_leave_out_the_normaliser():
    model = make_model(CHARACTERS)
    scorer = Scorer(model, CHARACTERS, normalized=False)
    (expected,) = score(model, CHARACTERS, ["emma"], normalized=False)
    assert scorer.score("emma") == pytest.approx(expected.log_prob)
    assert sum(x.log_prob for x in scorer.full_scores("emma")) == pytest.approx(expected.log_prob)
    log_prob, _ = scorer.base_score(scorer.begin_state(), "e")
    assert log_prob == pytest.approx(next(scorer.full_scores("emma")).log_prob)


@pytest.mark.parametrize("at_once", [1, 2, 6])
def test_a_text_runs_on_from_line_to_line(at_once, monkeypatch):
    monkeypatch.setattr(scoring, "_TOKENS_AT_ONCE", 4 * at_once)
    model = make_model(CHARACTERS)
    ids = torch.tensor([id for line in LINES for id in [*CHARACTERS.encode(line), 0]])
    contexts = F.pad(ids, (3, 0)).unfold(0, 3, 1)[:-1]
    losses = F.cross_entropy(model(contexts), ids, reduction="none")
    expected = [-part.sum().item() for part in losses.split([len(line) + 1 for line in LINES])]
    found = score(model, CHARACTERS, LINES, across=True)
    assert [line.log_prob for line in found] == pytest.approx(expected)
    assert found[0] == score(model, CHARACTERS, LINES)[0]  # nothing is before the first
    text = scoring.Text(model, CHARACTERS, across=True)
    parts = [text.score(LINES[i : i + at_once]) for i in range(0, len(LINES), at_once)]
    assert [line.log_prob for part in parts for line in part] == pytest.approx(expected)
    log_z_across = log_z(model, CHARACTERS, LINES, across=True)
    assert log_z_across.mean == pytest.approx(model(contexts).logsumexp(1).mean().item())


def test_errors():
    model = make_model(CHARACTERS)
    with pytest.raises(TypeError, match="one str 'emma'"):
        score(model, CHARACTERS, "emma")
    with pytest.raises(ValueError, match="vocabulary has 2 tokens, the model 7"):
        Scorer(model, Vocabulary((".", "a")))
    with pytest.raises(ValueError, match="line 1 holds a line break"):
        score(model, CHARACTERS, ["a\nb"])
    assert score(model, CHARACTERS, []) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from pymlp import TrainConfig, Trainer

    folder = tmp_path_factory.mktemp("score")
    path = folder / "lines.txt"
    path.write_text("\n".join(["emma", "ava", "mae"] * 10))
    lines = data.read_lines(path)
    dataset = Dataset.from_lines(lines)
    model = MLP(MLPConfig(len(dataset.vocabulary)))
    trainer = Trainer(model, dataset, TrainConfig(steps=20))
    trainer.save(folder / "run", source=str(path))
    trainer.fit()
    return folder / "run", model, dataset.vocabulary


def test_command(run):
    path, model, vocabulary = run
    result = CliRunner().invoke(main, ["score", str(path)], input="emma\n\nxa\r\n")
    assert result.exit_code == 0, result.output
    expected = score(model, vocabulary, ["emma", "", "xa"])
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[5] for row in rows] == ["emma", "", "xa"]
    for row, line in zip(rows, expected, strict=True):
        assert float(row[0]) == pytest.approx(line.log_prob, abs=1e-3)
        assert float(row[1]) == pytest.approx(line.bits, abs=1e-3)
        assert float(row[2]) == pytest.approx(line.perplexity, abs=1e-3)
        assert (int(row[3]), int(row[4])) == (line.n_tokens, line.n_oov)
    assert "3 lines, 8 tokens, 1 out of vocabulary" in result.stderr


def test_command_answers_each_line_of_a_pipe(run):
    command = [sys.executable, "-m", "pymlp", "score", str(run[0]), "--line-buffered"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        for line in ("emma", "ava"):
            process.stdin.write(line + "\n")
            process.stdin.flush()
            assert process.stdout.readline().endswith(f"\t{line}\n")


def test_command_json(run):
    path, model, vocabulary = run
    arguments = ["score", str(path), "-", "--json", "--per-token", "--no-eos"]
    result = CliRunner().invoke(main, arguments, input="emma\nxa\n")
    first, second, total = map(json.loads, result.stdout.splitlines())
    assert first["text"] == "emma"
    expected = score(model, vocabulary, ["emma", "xa"], eos=False)
    assert first["log_prob"] == pytest.approx(expected[0].log_prob, rel=1e-5)
    assert [token["oov"] for token in second["per_token"]] == [True, False]
    assert (total["lines"], total["tokens"], total["oov"]) == (2, 5, 1)
    nats = sum(line.log_prob for line in expected)
    assert total["perplexity"] == pytest.approx(math.exp(-nats / 5), rel=1e-5)


def test_command_without_normaliser(run):
    path, model, vocabulary = run
    lines = ["emma", "ava"]
    arguments = ["score", str(path), "-", "--unnormalized"]
    result = CliRunner().invoke(main, [*arguments, "--json"], input="\n".join(lines))
    *_, total = map(json.loads, result.stdout.splitlines())
    expected = score(model, vocabulary, lines, normalized=False)
    assert total["log_prob"] == pytest.approx(sum(line.log_prob for line in expected), rel=1e-5)
    off = log_z(model, vocabulary, lines)
    assert total["log_z"] == pytest.approx(off._asdict(), rel=1e-5)
    message = CliRunner().invoke(main, arguments, input="\n".join(lines)).stderr
    true = score(model, vocabulary, lines)
    perplexity = math.exp(-sum(x.log_prob for x in true) / sum(x.n_tokens for x in true))
    assert f"log Z is {off.mean:.4f} in the mean and at most {off.largest:.4f}" in message
    assert f"the perplexity is about {perplexity:.3f}" in message


def test_command_errors(run, tmp_path):
    path, *_ = run
    result = CliRunner().invoke(main, ["score", str(path), str(tmp_path / "missing.txt")])
    assert result.exit_code == 2
    assert "missing.txt" in result.stderr
    spoilt = tmp_path / "latin1.txt"
    spoilt.write_bytes(b"\nren\xe9\n")
    place = "not UTF-8 text: line 2, byte 4 of the file is 0xe9"
    for command in ("score", "rescore"):
        for name in (str(spoilt), "-"):
            arguments = [command, str(path), name]
            result = CliRunner().invoke(main, arguments, input=spoilt.read_bytes())
            assert result.exit_code == 1
            assert f"{'standard input' if name == '-' else name}: {place}" in result.stderr


def test_command_reads_text_as_training_does(run, tmp_path):
    path, *_ = run
    texts = {"plain": "emma\nxa\n", "mark": "\ufeffemma\r\nxa"}
    packed = gzip.compress(texts["plain"].encode())
    for name, content in {**texts, "packed": packed, "short": packed[:-9]}.items():
        content = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(content)
    plain, mark, packed, short = (
        CliRunner().invoke(main, ["score", str(path), str(tmp_path / name)])
        for name in ("plain", "mark", "packed", "short")
    )
    assert plain.exit_code == 0
    assert plain.stdout == mark.stdout == packed.stdout
    assert short.exit_code == 1
    assert "short: damaged gzip file" in short.stderr
