"""`python -m metav.cli` is the command `metav`."""

from metav.cli.commands import main

main()
