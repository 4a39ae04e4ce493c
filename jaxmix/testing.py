"""Assertions for users' own tests; jaxmix's tests use them too."""

from jaxmix._testing.everywhere import assert_same_everywhere
from jaxmix._testing.plans import assert_conserves, assert_resumes
from jaxmix._testing.shuffles import assert_shuffled

__all__ = ["assert_conserves", "assert_resumes", "assert_same_everywhere", "assert_shuffled"]
