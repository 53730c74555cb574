"""When to try again is decided by a policy that is given its dice."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chiffon.domain.retry import Fail, Retry, RetryPolicy

ALMOST_ONE = math.nextafter(1.0, 0.0)


def test_the_longest_wait_doubles_with_each_retry() -> None:
    policy = RetryPolicy(base=2.0, ceiling=1000.0)
    assert [policy.wait(retries, 0.5) for retries in range(4)] == [1.0, 2.0, 4.0, 8.0]


def test_no_wait_is_longer_than_the_ceiling() -> None:
    assert RetryPolicy(base=1.0, ceiling=30.0).wait(10, ALMOST_ONE) == pytest.approx(30.0)


def test_the_jitter_is_full() -> None:
    policy = RetryPolicy()
    assert policy.wait(5, 0.0) == 0.0
    assert policy.wait(5, ALMOST_ONE) == pytest.approx(32.0)


@given(
    st.integers(min_value=0, max_value=10**9),
    st.floats(min_value=0, max_value=1, exclude_max=True),
    st.floats(min_value=0, max_value=1e6),
    st.floats(min_value=0, max_value=1e6),
)
def test_a_wait_is_always_between_nothing_and_the_ceiling(
    retries: int, dice: float, base: float, ceiling: float
) -> None:
    assert 0 <= RetryPolicy(base, ceiling).wait(retries, dice) <= ceiling


def test_work_may_name_its_own_wait() -> None:
    assert Retry().after is None
    assert Retry(after=0).after == 0
    assert Retry("later", after=2.5).after == 2.5
    assert str(Retry("later")) == "later"


@pytest.mark.parametrize("after", [-1, -0.001, -math.inf, math.nan, math.inf, 1e12])
def test_a_wait_that_is_no_time_is_refused(after: float) -> None:
    with pytest.raises(ValueError, match="after"):
        Retry(after=after)


def test_a_refusal_is_no_wish_to_retry() -> None:
    assert not issubclass(Fail, Retry)
