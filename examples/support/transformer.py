"""A small decoder-only transformer in Flax NNX."""

import jax
import jax.numpy as jnp
from flax import nnx


class Block(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs):
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.attend = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.merge = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, use_bias=False, rngs=rngs)

    def __call__(self, x):
        heads = self.attend(self.norms[0](x)).reshape(*x.shape[:2], 3, -1, 32)
        query, key, value = jnp.moveaxis(heads, 2, 0)
        seen = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        x = x + self.merge(seen.reshape(x.shape))
        return x + self.down(jax.nn.gelu(self.up(self.norms[1](x))))


class Transformer(nnx.Module):
    """A decoder of `layers` blocks; `width` is a multiple of 32, the width of a head."""

    def __init__(self, vocabulary: int, length: int, width: int, layers: int, rngs: nnx.Rngs):
        self.tokens = nnx.Embed(vocabulary, width, rngs=rngs)
        self.places = nnx.Embed(length, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, rngs) for _ in range(layers)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, vocabulary, use_bias=False, rngs=rngs)

    def __call__(self, rows):
        """The logits [B, T, vocabulary] of each token of each row, given the tokens before it."""
        before = jnp.pad(rows[:, :-1], ((0, 0), (1, 0))).astype(jnp.int32)
        x = self.tokens(before) + self.places(jnp.arange(rows.shape[1]))[None]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
