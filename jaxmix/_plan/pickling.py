"""A check that a schedule can be pickled with its plan, with an error that says what to do."""

from __future__ import annotations

import pickle
import sys
from typing import Any

# Unlike Python's own pickle, these can also take functions that were made in other functions.
OTHER_PICKLERS = {"cloudpickle", "copy", "dill"}


def need_picklable(schedule: Any) -> None:
    """Raise a TypeError that says what to do if plain pickle can't take a schedule.

    cloudpickle and `copy.copy` take any function, and call the same methods as pickle. So the
    callers are inspected.
    """
    if _asked_by_another():
        return
    try:
        pickle.dumps(schedule)
    except Exception as error:
        raise TypeError(
            "a plan's schedule must be one that pickle can take, a schedule of jaxmix, a function "
            "at module level or a functools.partial of one (or send a PlanSource, which holds no "
            f"schedule, or use cloudpickle), got {str(error)[:200]}"
        ) from error


def _asked_by_another() -> bool:
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").split(".")[0] in OTHER_PICKLERS:
            return True
        frame = frame.f_back
    return False
