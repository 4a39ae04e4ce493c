"""Whether a schedule can be pickled with its plan, and what to do where it can't."""

from __future__ import annotations

import pickle
import sys
from typing import Any

# Python's own pickle can't take functions that were made in other functions, these can.
OTHER_PICKLERS = {"cloudpickle", "copy", "dill"}


def need_picklable(schedule: Any) -> None:
    """Raise a TypeError that says what to do if plain pickle can't take a schedule.

    The answer depends on who asks: cloudpickle and `copy.copy` take any function by the same way in
    which pickle fails, so the callers are looked at.
    """
    if _asked_by_another():
        return
    try:
        pickle.dumps(schedule)
    except Exception as error:
        raise TypeError(
            "a plan's schedule must be one that pickle can take: a schedule of jaxmix, a function "
            "of a module, a functools.partial of one; or send a PlanSource, which has no schedule "
            f"in it, or use cloudpickle, got {str(error)[:200]}"
        ) from error


def _asked_by_another() -> bool:
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").split(".")[0] in OTHER_PICKLERS:
            return True
        frame = frame.f_back
    return False
