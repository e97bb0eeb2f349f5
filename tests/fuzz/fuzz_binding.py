"""Fuzzes the binding: with atheris where it is installed, else with random bytes.

python tests/fuzz/fuzz_binding.py --cases 1000000              random bytes and mutations of the seed corpus
python tests/fuzz/fuzz_binding.py --atheris -runs=1000000 DIR  guided by coverage; the rest is for libFuzzer
python tests/fuzz/fuzz_binding.py FILE                         one case again
"""

import argparse
import collections
import random
import sys
from pathlib import Path

from cases import run_case

from metav import _core

CORPUS = Path(__file__).parent / "corpus" / "binding"


def mutate(generator: random.Random, seeds: list[bytes]) -> bytes:
    """Fresh bytes, or a seed with a few bytes changed."""
    if generator.random() < 0.3:
        return generator.randbytes(generator.randrange(1, 40))
    case = bytearray(generator.choice(seeds) + bytes(4))
    for _ in range(generator.randrange(1, 6)):
        case[generator.randrange(len(case))] = generator.randrange(256)
    return bytes(case)


def run_random(cases: int, seed: int) -> collections.Counter[str]:
    """Runs so many cases; counts what came out."""
    generator = random.Random(seed)
    seeds = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    outcomes: collections.Counter[str] = collections.Counter()
    for number in range(cases):
        data = mutate(generator, seeds)
        try:
            outcomes[run_case(data)] += 1
        except BaseException:
            Path("failing-case").write_bytes(data)
            print(f"case {number} of seed {seed} failed; its bytes are in failing-case", file=sys.stderr)
            raise
    return outcomes


def run_atheris(options: list[str]) -> None:
    import atheris

    def run_one(data: bytes) -> None:
        run_case(data)

    print(f"fuzzing {_core.__file__}", file=sys.stderr)  # the build that was meant, not another on the path
    atheris.instrument_func(run_case)
    atheris.Setup([sys.argv[0], *options], run_one)
    atheris.Fuzz()


def main() -> None:
    if sys.argv[1:2] == ["--atheris"]:
        run_atheris(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    for path in arguments.files:
        print(path, run_case(path.read_bytes()))
    if not arguments.files:
        outcomes = run_random(arguments.cases, arguments.seed)
        print(f"{sum(outcomes.values())} cases: {dict(sorted(outcomes.items()))}")


if __name__ == "__main__":
    main()
