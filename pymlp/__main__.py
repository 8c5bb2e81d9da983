"""``python -m pymlp`` is the command line program `pymlp`."""

from pymlp.cli import main

main(prog_name="pymlp")
