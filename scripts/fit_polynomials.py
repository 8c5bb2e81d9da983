"""Compute the minimax polynomials of csrc/kernels/cpu/math-inl.h with the Remez exchange algorithm.

exp(r) = 1 + r + r² P(r)      for |r| <= ln(2)/2
tanh(x) = x + x³ Q(x²)        for |x| <= 0.625

Run `python scripts/fit_polynomials.py`; needs mpmath, takes some seconds.
"""

from collections.abc import Callable

from mpmath import cos, exp, log, lu_solve, matrix, mp, mpf, pi, polyval, sqrt, tanh

mp.prec = 250


def exp_remainder(r: mpf) -> mpf:
    """(exp(r) - 1 - r) / r²."""
    return (exp(r) - 1 - r) / r**2 if abs(r) > mpf(10) ** -20 else mpf(1) / 2 + r / 6


def tanh_remainder(y: mpf) -> mpf:
    """(tanh(x)/x - 1) / x² of y = x²."""
    x = sqrt(abs(y))
    return (tanh(x) / x - 1) / x**2 if x > mpf(10) ** -20 else -mpf(1) / 3


def remez(target: Callable[[mpf], mpf], low: mpf, high: mpf, degree: int) -> tuple[list[mpf], mpf]:
    """Coefficients of the best polynomial on [low, high], lowest power first, and its error."""
    count = degree + 2
    middle, half = (low + high) / 2, (high - low) / 2
    nodes = [middle - half * cos(pi * i / (count - 1)) for i in range(count)]
    grid = [middle - half * cos(pi * i / 1000) for i in range(1001)]
    for _ in range(8):
        system, right = matrix(count, count), matrix(count, 1)
        for i, x in enumerate(nodes):
            for j in range(degree + 1):
                system[i, j] = x**j
            system[i, degree + 1] = (-1) ** i
            right[i] = target(x)
        coefficients = list(lu_solve(system, right))[: degree + 1]
        errors = [target(x) - polyval(coefficients[::-1], x) for x in grid]
        nodes = alternating_peaks(grid, errors)
    return coefficients, max(abs(e) for e in errors)


def alternating_peaks(grid: list[mpf], errors: list[mpf]) -> list[mpf]:
    """The points where the error is largest between one change of its sign and the next."""
    peaks: list[int] = []
    for i, error in enumerate(errors):
        if peaks and (error > 0) == (errors[peaks[-1]] > 0):
            if abs(error) > abs(errors[peaks[-1]]):
                peaks[-1] = i
        else:
            peaks.append(i)
    return [grid[i] for i in peaks]


def main() -> None:
    edge = log(2) / 2 * mpf("1.0001")  # rounding may carry r just past ln(2)/2
    square = mpf("0.625") ** 2
    for name, fit in {
        "exp float32": (exp_remainder, -edge, edge, 4, 10),
        "exp float64": (exp_remainder, -edge, edge, 9, 18),
        "tanh float32": (tanh_remainder, mpf(0), square, 5, 10),
        "tanh float64": (tanh_remainder, mpf(0), square, 11, 18),
    }.items():
        *problem, digits = fit
        coefficients, error = remez(*problem)
        print(f"{name}: largest error {mp.nstr(error, 3)}")
        for c in coefficients:
            print("   ", mp.nstr(c, digits))


if __name__ == "__main__":
    main()
