"""Functions of the step: schedules, their weights, and how a schedule is evaluated."""
