"""The mixers that every test of a promise runs over: each alone, and all wrappers together."""

from jaxmix import (
    exp3,
    exponentiated_gradient,
    floor_weights,
    limit_change,
    smooth_weights,
    update_every,
)

K = 4


def wrapped(mixer):
    mixer = smooth_weights(update_every(mixer, 3), 0.8)
    return floor_weights(limit_change(mixer, 0.05), 0.02)


EG = exponentiated_gradient(K, 0.5, [0.4, 0.3, 0.2, 0.1])
MIXERS = {
    "exponentiated_gradient": EG,
    "exp3": exp3(K, 0.2, 0.5),
    "smooth_weights": smooth_weights(EG, 0.8),
    "update_every": update_every(EG, 3),
    "floor_weights": floor_weights(EG, 0.02),
    "limit_change": limit_change(EG, 0.05),
    "all wrappers": wrapped(EG),
    "all wrappers around exp3": wrapped(exp3(K, 0.2, 0.5)),
}
