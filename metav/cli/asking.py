"""The options of the commands that ask a suspect: budget, pace, retries, order, decoys, log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import click

from metav.suspects.asking_options import AskingOptions

_LOG = click.option("--log", metavar="FILE", help="Keep every query in this SQLite file, and go on from it.")
_OPTIONS = (
    click.option(
        "--budget",
        type=click.IntRange(min=1),
        metavar="N",
        help="Most queries to send in all, attempts that fail included.",
    ),
    click.option("--price", type=float, default=0.0, metavar="MONEY", help="What one query costs."),
    click.option("--money", type=float, metavar="MONEY", help="Most money to spend in all, with --price."),
    click.option("--rate", type=float, metavar="N", help="Most queries per second."),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=256,
        show_default=True,
        help="Most queries per call; less once one is refused.",
    ),
    click.option(
        "--attempts",
        type=click.IntRange(min=1),
        metavar="N",
        help="Most times to send a batch.  [default: 6 to services, else 1]",
    ),
    click.option(
        "--longest-wait",
        type=float,
        default=300.0,
        show_default=True,
        metavar="SECONDS",
        help="Stop if asked to wait longer; the same command goes on from the log.",
    ),
    click.option(
        "--shuffle/--in-order",
        "shuffle",
        default=None,
        help="Send in random order.  [default: to services, and with decoys]",
    ),
    click.option(
        "--decoys",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Changed natural inputs to mix in; even.",
    ),
    click.option(
        "--repeats",
        type=click.IntRange(min=0),
        metavar="N",
        help="Queries to send twice.  [default: 8, or more in many batches]",
    ),
    click.option("--asking-seed", "seed", type=int, default=0, show_default=True, help="Seed of order and decoys."),
    click.option("--keep-queries", is_flag=True, help="Store the secret queries in the log, too, not only digests."),
)


def asking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of asking."""
    return _LOG(asking_options_without_log(command))


def asking_options_without_log(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of asking but --log, which is of one fingerprint and one suspect."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def asking_from(options: Mapping[str, Any]) -> AskingOptions:
    """Return the options of asking among those of a command; InputError where they cannot be used."""
    return AskingOptions(
        **{field.name: options[field.name] for field in fields(AskingOptions) if field.name in options}
    )
