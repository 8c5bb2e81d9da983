"""Comments and docstrings name their subject first."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
_OPENING = re.compile(r'^ *(//|#|""") ?(What|Where|Who|Whose|Those|Of) ')


def test_comments_name_their_subject_first():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for directory in ("pymlp", "csrc", "benchmarks", "scripts")
        for path in sorted((ROOT / directory).rglob("*"))
        if path.suffix in {".py", ".pyi", ".h", ".cpp", ".cu", ".sh"}
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if _OPENING.match(line)
    ]
    assert not found, "\n".join(found)
