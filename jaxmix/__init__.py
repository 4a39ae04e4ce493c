"""Anneal the mixture of training data, losses or distributions in JAX."""

from importlib.metadata import version as _version

from jaxmix.annealing import AnnealingReport, annealing_report, check_annealing
from jaxmix.checked import check_weights
from jaxmix.combinators import (
    clip_schedule,
    complement,
    nest_schedules,
    rescale_steps,
    stack_schedules,
    token_share_schedule,
)
from jaxmix.curricula import (
    competence_schedule,
    cyclical_schedule,
    dann_schedule,
    inverse_sigmoid_schedule,
)
from jaxmix.distributions import mix_log_probs, mix_logits
from jaxmix.draws import (
    bernoulli_sources,
    counted_sources,
    systematic_sources,
    uniform_rows,
)
from jaxmix.feed import PlanSelectionMap, PlanSource, plan_batches
from jaxmix.losses import SourceSums, interpolate, mix_loss_fns, source_sums
from jaxmix.metrics import MixMetrics
from jaxmix.plan import MixPlan, PlannedRows
from jaxmix.plots import plot_schedules
from jaxmix.preview import Preview, preview
from jaxmix.processes import check_same_plan, local_part
from jaxmix.rows import MixedBatch, RowPool, draw_rows, mix_rows, select_rows
from jaxmix.sampler import MixtureSampler
from jaxmix.schedules import (
    cosine_schedule,
    exponential_schedule,
    make_schedule,
    sigmoid_schedule,
)
from jaxmix.sizes import temperature_schedule, unimax_weights
from jaxmix.tables import staged_schedule, table_schedule, tabulate
from jaxmix.weights import weights_at

__version__ = _version("jaxmix-schedules")

__all__ = [
    "AnnealingReport",
    "MixMetrics",
    "MixPlan",
    "MixedBatch",
    "MixtureSampler",
    "PlanSelectionMap",
    "PlanSource",
    "PlannedRows",
    "Preview",
    "RowPool",
    "SourceSums",
    "annealing_report",
    "bernoulli_sources",
    "check_annealing",
    "check_same_plan",
    "check_weights",
    "clip_schedule",
    "competence_schedule",
    "complement",
    "cosine_schedule",
    "counted_sources",
    "cyclical_schedule",
    "dann_schedule",
    "draw_rows",
    "exponential_schedule",
    "interpolate",
    "inverse_sigmoid_schedule",
    "local_part",
    "make_schedule",
    "mix_log_probs",
    "mix_logits",
    "mix_loss_fns",
    "mix_rows",
    "nest_schedules",
    "plan_batches",
    "plot_schedules",
    "preview",
    "rescale_steps",
    "select_rows",
    "sigmoid_schedule",
    "source_sums",
    "stack_schedules",
    "staged_schedule",
    "systematic_sources",
    "table_schedule",
    "tabulate",
    "temperature_schedule",
    "token_share_schedule",
    "uniform_rows",
    "unimax_weights",
    "weights_at",
]
