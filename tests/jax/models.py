"""Flax models, nnx and linen, that a converter must get right, and some that it must refuse."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

_RNG = np.random.default_rng(0)


def drawn(_: Any, shape: tuple[int, ...], dtype: Any = jnp.float32, *__: Any) -> jax.Array:
    """Weights drawn by NumPy: compiling jax's own generators takes longer than all the rest."""
    values = _RNG.standard_normal(shape) * math.prod(shape[:-1]) ** -0.5
    return jnp.asarray(values.astype(np.float32), dtype)


Conv = functools.partial(nnx.Conv, kernel_init=drawn, bias_init=drawn)
Linear = functools.partial(nnx.Linear, kernel_init=drawn, bias_init=drawn)


class Block(nnx.Module):
    """A convolution, a batch norm and a ReLU; the ReLU's values are sown."""

    def __init__(self, n_in: int, n_out: int, rngs: nnx.Rngs) -> None:
        self.conv = Conv(n_in, n_out, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(n_out, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.conv(x)))
        self.sow(nnx.Intermediate, "active", x)
        return x


class Network(nnx.Module):
    """A CNN with nested submodules, one of them used twice, dropout, and all kinds of pooling."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = Conv(3, 8, (5, 5), strides=2, rngs=rngs)
        self.blocks = nnx.List([Block(8, 8, rngs), Block(8, 12, rngs)])
        self.mlp = nnx.Sequential(
            Linear(3 * 3 * 12, 10, rngs=rngs),
            nnx.LayerNorm(10, rngs=rngs),
            nnx.gelu,
        )
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = Linear(10, 5, rngs=rngs)
        self.n_runs = nnx.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, x: jax.Array) -> jax.Array:
        self.n_runs.set_value(self.n_runs.get_value() + 1)
        x = nnx.max_pool(self.stem(x), (3, 3), strides=(1, 1), padding=((1, 1), (1, 1)))
        x = self.blocks[0](x)
        x = x + self.blocks[0](x)
        x = nnx.avg_pool(self.blocks[1](x), (3, 3), (2, 2), "SAME", count_include_pad=False)
        x = nnx.max_pool(x, window_shape=(2, 2), strides=None)
        x = self.drop(self.mlp(x.reshape(x.shape[0], -1)))
        return self.head(x)


def make_network() -> Network:
    network = Network(nnx.Rngs(0))
    _randomise_batch_norms(network)
    return network


def _randomise_batch_norms(network: nnx.Module) -> None:
    """Statistics as after training: with the first ones, batch norm is close to the identity."""
    rng = np.random.default_rng(1)
    for _, part in nnx.iter_modules(network):
        if isinstance(part, nnx.BatchNorm):
            for variable in (part.mean, part.var, part.scale, part.bias):
                lowest = 0.5 if variable is part.var or variable is part.scale else -0.5
                shape = variable.get_value().shape
                variable.set_value(jnp.asarray(rng.uniform(lowest, 1, shape), jnp.float32))


class ViewedNet(nnx.Module):
    """Takes NCHW, as some do who come from elsewhere, and returns two results."""

    def __init__(self) -> None:
        self.conv = Conv(3, 4, (3, 3), rngs=nnx.Rngs(2))

    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        assert not train
        x = self.conv(jnp.transpose(x, (0, 2, 3, 1)))
        return {"map": x, "mean": x.mean(axis=(1, 2)), "all": x.mean()}


class Tokens(nnx.Module):
    """Attention over patches, with a class token."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(3)
        self.patches = Conv(3, 8, (4, 4), strides=4, padding="VALID", rngs=rngs)
        self.token = nnx.Param(drawn(None, (1, 1, 8)))
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            2, 8, decode=False, dropout_rate=0.5, kernel_init=drawn, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.patches(x)
        x = x.reshape(x.shape[0], -1, 8)
        token = jnp.broadcast_to(self.token.get_value(), (x.shape[0], 1, 8))
        x = jnp.concatenate([token, x], axis=1)
        return (x + self.attention(self.norm(x)))[:, 0]


class LinenBlock(linen.Module):
    features: int

    @linen.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = linen.Conv(self.features, (3, 3), kernel_init=drawn)(x)
        x = linen.BatchNorm(use_running_average=not train)(x)
        return linen.relu(x)


class LinenNet(linen.Module):
    """A CNN with nested submodules, one of them used twice."""

    def setup(self) -> None:
        self.stem = linen.Conv(6, (3, 3), strides=(2, 2), kernel_init=drawn)
        self.block = LinenBlock(6)
        self.drop = linen.Dropout(0.5)
        self.head = linen.Dense(5, kernel_init=drawn)

    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        x = self.block(self.block(self.stem(x), train), train)
        x = linen.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        x = linen.avg_pool(x, (2, 2), strides=(2, 2)).mean(axis=(1, 2))
        self.sow("intermediates", "pooled", x)
        return self.head(self.drop(x, deterministic=not train))


def make_linen() -> linen.Module:
    module = LinenNet()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False)
    rng = np.random.default_rng(1)
    moved = jax.tree.map_with_path(
        lambda path, leaf: jnp.asarray(
            rng.uniform(0.5 if path[-1].key == "var" else -0.5, 1, leaf.shape), leaf.dtype
        ),
        variables["batch_stats"],
    )
    return module.bind({**variables, "batch_stats": moved})


class Child(nnx.Linear):
    """Calls its parent's ``__call__``: one layer all the same."""

    def __call__(self, x: jax.Array, out_sharding: object = None) -> jax.Array:
        return super().__call__(x) + 1


class Awkward(nnx.Module):
    """Layers that return what they were given, names of the graph's own, calls inside jit."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(5)
        self.input = nnx.Dropout(0.5, rngs=rngs)
        self.output = Child(3, 4, kernel_init=drawn, rngs=rngs)
        self.again = self.output
        self.inner = Linear(4, 4, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.output(self.input(x))
        x = jax.jit(self.inner)(x)
        return self.again(x[..., :3])


class Culprit(nnx.Module):
    """One layer, and then a step that cannot be converted."""

    def __init__(self, step: nnx.Module) -> None:
        self.conv = Conv(3, 3, (1, 1), rngs=nnx.Rngs(0))
        self.step = step

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.step(self.conv(x))


class BrightnessGate(nnx.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return x if x.mean() > 0 else -x


class PairsOnly(nnx.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return x.reshape(2, *x.shape[1:])


class OddAndEven(nnx.Module):
    def __init__(self) -> None:
        self.extra = nnx.Dropout(0.5, deterministic=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.extra(x) if x.shape[0] % 2 else x


class Spectrum(nnx.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.abs(jnp.fft.fft2(x, axes=(1, 2)))


class Half(nnx.Module):
    def __init__(self) -> None:
        self.conv = Conv(3, 3, (1, 1), dtype=jnp.bfloat16, rngs=nnx.Rngs(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(x)


class Pool(nnx.Module):
    """One call of a pooling function, as a submodule."""

    def __init__(self, function: str, *args: Any, **kwargs: Any) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs

    def __call__(self, x: jax.Array) -> jax.Array:
        pooled: jax.Array = getattr(nnx, self.function)(x, *self.args, **self.kwargs)
        return pooled


class Pools(nnx.Module):
    """Pooling with all the ways of giving its arguments."""

    def __init__(self) -> None:
        edge = ((1, 1), (0, 1))
        self.max = nnx.List(
            [
                Pool("max_pool", (3, 3)),
                Pool("max_pool", (3, 2), (2, 1), "SAME"),
                Pool("max_pool", window_shape=(3, 3), strides=(2, 2), padding=edge),
            ]
        )
        self.min = nnx.List(
            [Pool("min_pool", (2, 2), (2, 2)), Pool("min_pool", (3, 3), None, edge)]
        )
        self.avg = nnx.List(
            [
                Pool("avg_pool", (3, 3), (2, 2)),
                Pool("avg_pool", (3, 3), padding="SAME"),
                Pool("avg_pool", (3, 3), (2, 2), "SAME", count_include_pad=False),
                Pool("avg_pool", (3, 3), strides=(2, 2), padding=edge),
                Pool("avg_pool", (3, 3), (1, 1), edge, False),
            ]
        )

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        return [pool(x) for pool in (*self.max, *self.min, *self.avg)]
