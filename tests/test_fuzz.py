"""Mutated inputs of every kind: refused by one line or read right; `python tests/fuzz.py 1000` runs
more."""

from collections import Counter
from itertools import islice

import pytest
from fuzz import mutations, run, sources


@pytest.mark.parametrize("seed", range(5))
def test_mutated_inputs_are_refused_or_read_right(seed):
    assert sum(Counter(run(case) for case in islice(mutations(seed), 10)).values()) == 10


def test_whole_inputs_are_accepted():
    from fuzz import Case

    assert {kind: run(Case(kind, *source))
            for kind, source in sources().items()} == dict.fromkeys(sources(), "accepted")


def test_the_same_seed_gives_the_same_inputs():
    first, again, other = ([(c.kind, c.data) for c in islice(mutations(s), 20)] for s in (3, 3, 4))
    assert first == again != other
