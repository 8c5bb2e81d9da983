from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

class TrainingData:
    @staticmethod
    def table(tokens: NDArray[np.int64], targets: NDArray[np.int64]) -> TrainingData: ...
    @staticmethod
    def stream(ids: NDArray[np.int32], begin: int, end: int, reset: bool) -> TrainingData: ...

class Candidates:
    def __init__(
        self, *, counts: NDArray[np.int64], noise: int, batch_size: int, seed: int
    ) -> None: ...
    def draw(
        self, step: int, targets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]: ...

class _TrainingLoop:
    profiling: bool
    def __init__(
        self,
        *,
        vocab_size: int,
        block_size: int,
        n_embd: int,
        n_hidden: int,
        adamw: bool,
        momentum: float,
        weight_decay: float,
        betas: tuple[float, float],
        eps: float,
        max_grad_norm: float,
        data: TrainingData,
        batch_size: int,
        direct: bool = False,
        decay_biases: bool = True,
        sparse_embedding: bool = False,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        dropout: float = 0.0,
        dropout_seed: int = 0,
        candidates: Candidates | None = None,
    ) -> None: ...
    @property
    def profile(self) -> dict[str, tuple[float, int]]: ...
    def run(
        self,
        *,
        parameters: list[NDArray[Any]],
        trained: list[bool],
        first: list[NDArray[Any]],
        second: list[NDArray[Any]],
        indices: NDArray[np.int64],
        rates: NDArray[np.float64],
        losses: NDArray[np.float64],
        grad_norms: NDArray[np.float64] | None,
        done: NDArray[np.int64],
        done_before: int,
        first_step: int = 0,
        threads: int,
        stopping: Callable[[], bool],
    ) -> None: ...

class TrainingLoopFloat32(_TrainingLoop): ...
class TrainingLoopFloat64(_TrainingLoop): ...

def dropout_kept(
    *, seed: int, step: int, hidden: bool, p: float, rows: int, columns: int
) -> NDArray[np.uint8]: ...
def distinct_code_points(text: bytes) -> list[int]: ...
def encode(text: bytes, code_points: list[int]) -> NDArray[np.int32]: ...
def contexts(
    ids: NDArray[np.int32], reset: bool, begin: int, end: int, block_size: int
) -> NDArray[np.int64]: ...
def examples_at(
    ids: NDArray[np.int32],
    reset: bool,
    begin: int,
    end: int,
    indices: NDArray[np.int64],
    block_size: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
def find_lines(ids: NDArray[np.int32], wanted: NDArray[np.int32]) -> list[bool]: ...

class TextReader:
    def __init__(self, words: bool) -> None: ...
    def feed(self, block: bytes) -> NDArray[np.int32]: ...
    def finish(self) -> NDArray[np.int32]: ...
    def spellings(self) -> list[str]: ...
    @property
    def n_lines(self) -> int: ...
    @property
    def n_empty(self) -> int: ...

class NGramCounts:
    def __init__(
        self, *, ids: NDArray[np.int32], order: int, vocab_size: int, reset: bool
    ) -> None: ...
    def look_up(
        self, ids: NDArray[np.int32], begin: int, end: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]: ...
    def ngrams(self, n: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]: ...

class KneserNey:
    def __init__(self, counts: NGramCounts) -> None: ...
    def log_probs(self, ids: NDArray[np.int32], begin: int, end: int) -> NDArray[np.float64]: ...
    def discounts(self, n: int) -> tuple[float, float, float]: ...
    def ngram_log_probs(self, n: int) -> NDArray[np.float64]: ...
    def ngram_log_backoffs(self, n: int) -> NDArray[np.float64]: ...

def available_isas() -> list[str]: ...
def active_isa() -> str: ...
def active_lanes() -> int: ...
def force_isa(name: str) -> bool: ...
def compiler() -> str: ...
def uniforms(*, seed: int, sequences: NDArray[np.int64], position: int) -> NDArray[np.float64]: ...
def token_losses_float32(
    *,
    sizes: tuple[int, int, int, int],
    parameters: list[NDArray[np.float32]],
    tokens: NDArray[np.int64],
    targets: NDArray[np.int64],
    threads: int,
) -> NDArray[np.float32]: ...
def token_losses_float64(
    *,
    sizes: tuple[int, int, int, int],
    parameters: list[NDArray[np.float64]],
    tokens: NDArray[np.int64],
    targets: NDArray[np.int64],
    threads: int,
) -> NDArray[np.float64]: ...
def token_logits_float32(
    *,
    sizes: tuple[int, int, int, int],
    parameters: list[NDArray[np.float32]],
    tokens: NDArray[np.int64],
    targets: NDArray[np.int64],
    threads: int,
) -> NDArray[np.float32]: ...
def token_logits_float64(
    *,
    sizes: tuple[int, int, int, int],
    parameters: list[NDArray[np.float64]],
    tokens: NDArray[np.int64],
    targets: NDArray[np.int64],
    threads: int,
) -> NDArray[np.float64]: ...
def sample_float32(
    *,
    sizes: tuple[int, int, int, int],
    parameters: list[NDArray[np.float32]],
    count: int,
    prefix: list[int],
    max_length: int,
    temperature: float,
    top_k: int,
    seed: int,
    threads: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]: ...
def sample_float64(
    *,
    sizes: tuple[int, int, int, int],
    parameters: list[NDArray[np.float64]],
    count: int,
    prefix: list[int],
    max_length: int,
    temperature: float,
    top_k: int,
    seed: int,
    threads: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]: ...
