"""Anneal the mixture of training data, losses or distributions in JAX."""

from importlib import metadata as _metadata

from jaxmix import testing as testing
from jaxmix._adaptive.exp3 import exp3
from jaxmix._adaptive.exponentiated_gradient import exponentiated_gradient
from jaxmix._adaptive.floor_weights import floor_weights
from jaxmix._adaptive.limit_change import limit_change
from jaxmix._adaptive.mixer import Mixer
from jaxmix._adaptive.smooth_weights import smooth_weights
from jaxmix._adaptive.update_every import update_every
from jaxmix._feed.feed import PlanSource
from jaxmix._feed.multihost import check_same_plan, local_shard
from jaxmix._feed.planned_pool import PlannedPool
from jaxmix._feed.selection_map import PlanSelectionMap
from jaxmix._feed.stream import PlanStream
from jaxmix._losses.interpolate import interpolate, mix_log_probs, mix_logits
from jaxmix._losses.loss_fns import add_loss_fns, mix_loss_fns
from jaxmix._losses.source_sums import SourceSums, source_sums
from jaxmix._mixing.block_shuffle import BlockShuffle
from jaxmix._mixing.draws import (
    bernoulli_sources,
    counted_sources,
    systematic_sources,
    uniform_rows,
)
from jaxmix._mixing.metrics import MixMetrics
from jaxmix._mixing.pool import RowPool, draw_rows
from jaxmix._mixing.rows import MixedBatch, mix_rows, select_rows
from jaxmix._mixing.sampler import MixtureSampler
from jaxmix._mixing.shuffle import shuffle_index
from jaxmix._plan.batch_sizes import rows_schedule
from jaxmix._plan.plan import MixPlan
from jaxmix._plan.timeline import PlannedRows
from jaxmix._preview.plots import plot_schedules
from jaxmix._preview.preview import Preview, preview
from jaxmix._schedules.annealing import AnnealingReport, annealing_report, check_annealing
from jaxmix._schedules.by_size import temperature_schedule, unimax_weights
from jaxmix._schedules.combinators import (
    clip_schedule,
    complement_schedule,
    nest_schedules,
    rescale_schedule,
    stack_schedules,
    token_share_schedule,
)
from jaxmix._schedules.curricula import (
    competence_schedule,
    cyclical_schedule,
    dann_schedule,
    inverse_sigmoid_schedule,
)
from jaxmix._schedules.tables import staged_schedule, table_schedule, tabulate
from jaxmix._schedules.transitions import (
    cosine_schedule,
    exponential_schedule,
    make_schedule,
    sigmoid_schedule,
)
from jaxmix._schedules.weights import checkify_weights, weights_at

try:
    __version__ = _metadata.version("jaxmix-schedules")
except _metadata.PackageNotFoundError:  # imported from a folder, not installed
    __version__ = "0+unknown"

__all__ = [
    "AnnealingReport",
    "BlockShuffle",
    "MixMetrics",
    "MixPlan",
    "MixedBatch",
    "Mixer",
    "MixtureSampler",
    "PlanSelectionMap",
    "PlanSource",
    "PlanStream",
    "PlannedPool",
    "PlannedRows",
    "Preview",
    "RowPool",
    "SourceSums",
    "add_loss_fns",
    "annealing_report",
    "bernoulli_sources",
    "check_annealing",
    "check_same_plan",
    "checkify_weights",
    "clip_schedule",
    "competence_schedule",
    "complement_schedule",
    "cosine_schedule",
    "counted_sources",
    "cyclical_schedule",
    "dann_schedule",
    "draw_rows",
    "exp3",
    "exponential_schedule",
    "exponentiated_gradient",
    "floor_weights",
    "interpolate",
    "inverse_sigmoid_schedule",
    "limit_change",
    "local_shard",
    "make_schedule",
    "mix_log_probs",
    "mix_logits",
    "mix_loss_fns",
    "mix_rows",
    "nest_schedules",
    "plot_schedules",
    "preview",
    "rescale_schedule",
    "rows_schedule",
    "select_rows",
    "shuffle_index",
    "sigmoid_schedule",
    "smooth_weights",
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
    "update_every",
    "weights_at",
]


def __dir__() -> list[str]:
    """List the public names only; the names of the wings begin with an underscore."""
    return sorted([*__all__, "testing", *(name for name in globals() if name.startswith("__"))])
