"""A small LSTM that labels every step of a sequence, in NumPy alone.

Trained by truncated backpropagation: `Classifier.gradient` takes one batch of segments with the
states that the segments before left, and gives the gradient within the segments and the states for
the next ones.

The same inputs give the same bits, every time: float32, one fixed order of operations, and one BLAS
thread (set OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1 before NumPy is imported).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Segment:
    """What one batch gives.

    loss : sum over its valid steps of the cross-entropy (nats).
    correct : valid steps that were labelled right.
    steps : valid steps.
    gradient : of `loss`, flat like the parameters; empty where it was not asked for.
    h, c : states after the segment, [rows, hidden].
    """

    loss: float
    correct: int
    steps: int
    gradient: np.ndarray
    h: np.ndarray
    c: np.ndarray


class Classifier:
    """One LSTM layer and a logistic output per step.

    Parameters
    ----------
    inputs, hidden : values per step, cells.
    memory : the steps that the cells are to remember, at most. Forget and input gates begin with
        biases that give time constants from 1 to `memory`.
    seed : of the initial weights.
    dtype : float32; float64 is for checking the gradient.

    Attributes
    ----------
    flat : all parameters, one array; the named ones (wx [inputs, 4 hidden], wh [hidden, 4 hidden],
        b [4 hidden], wo [hidden], bo [1]) are views of it. Gate order: input, forget, output, cell.
    """

    def __init__(
        self, inputs: int, hidden: int, memory: float, seed: int, dtype: str = "float32"
    ) -> None:
        self.hidden = hidden
        self._shapes = {
            "wx": (inputs, 4 * hidden),
            "wh": (hidden, 4 * hidden),
            "b": (4 * hidden,),
            "wo": (hidden,),
            "bo": (1,),
        }
        self.flat = np.zeros(sum(int(np.prod(s)) for s in self._shapes.values()), dtype)
        parameters = self._named(self.flat)
        self.wx, self.wh, self.b = parameters["wx"], parameters["wh"], parameters["b"]
        self.wo, self.bo = parameters["wo"], parameters["bo"]
        rng = np.random.default_rng(seed)
        self.wx[...] = rng.normal(0, 1, self.wx.shape)
        self.wh[...] = rng.normal(0, 0.5 / np.sqrt(hidden), self.wh.shape)
        self.wo[...] = rng.normal(0, 1 / np.sqrt(hidden), self.wo.shape)
        forget = np.log(rng.uniform(1, max(2.0, memory - 1), hidden))
        self.b[:hidden] = -forget
        self.b[hidden : 2 * hidden] = forget

    def _named(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        views, at = {}, 0
        for name, shape in self._shapes.items():
            size = int(np.prod(shape))
            views[name] = flat[at : at + size].reshape(shape)
            at += size
        return views

    def gradient(
        self,
        x: np.ndarray,
        label: np.ndarray,
        mask: np.ndarray,
        h: np.ndarray,
        c: np.ndarray,
        backward: bool = True,
    ) -> Segment:
        """Loss of one batch of segments, and its gradient.

        Parameters
        ----------
        x : [rows, U, inputs], label, mask : [rows, U]; only steps where `mask` is true count. In
            each row they come before all others, so what the others do to the state touches no
            loss.
        h, c : [rows, hidden], states before the segment; taken as constants.
        backward : False leaves the gradient out.
        """
        rows, unroll, inputs = x.shape
        n, dtype = self.hidden, self.flat.dtype
        x = np.ascontiguousarray(x.transpose(1, 0, 2), dtype)  # time first
        from_x = (x.reshape(-1, inputs) @ self.wx).reshape(unroll, rows, 4 * n) + self.b
        gates = np.empty((unroll, rows, 4 * n), dtype)
        hs = np.empty((unroll + 1, rows, n), dtype)
        cs = np.empty((unroll + 1, rows, n), dtype)
        tanh_c = np.empty((unroll, rows, n), dtype)
        hs[0], cs[0] = h, c
        for t in range(unroll):
            z = from_x[t] + hs[t] @ self.wh
            z[:, : 3 * n] *= dtype.type(0.5)  # sigmoid(z) = (1 + tanh(z / 2)) / 2
            gate = np.tanh(z, out=gates[t])
            gate[:, : 3 * n] += dtype.type(1)
            gate[:, : 3 * n] *= dtype.type(0.5)
            np.multiply(gate[:, n : 2 * n], cs[t], out=cs[t + 1])
            cs[t + 1] += gate[:, :n] * gate[:, 3 * n :]
            np.tanh(cs[t + 1], out=tanh_c[t])
            np.multiply(gate[:, 2 * n : 3 * n], tanh_c[t], out=hs[t + 1])

        weight = np.ascontiguousarray(mask.T, dtype)
        target = np.ascontiguousarray(label.T, dtype)
        logit = hs[1:] @ self.wo + self.bo
        # log(1 + exp(z)) - z * target, without overflow
        loss = np.maximum(logit, 0) + np.log1p(np.exp(-np.abs(logit))) - logit * target
        right = ((logit > 0) == (target > 0.5)) & (weight > 0)
        d_logit = (dtype.type(1) / (dtype.type(1) + np.exp(-np.clip(logit, -60, 60))) - target)
        d_logit *= weight
        if backward:
            gradient = self._backward(x, gates, hs, cs, tanh_c, d_logit)
        else:
            gradient = np.empty(0, dtype)
        return Segment(
            loss=float((loss * weight).sum(dtype=np.float64)),
            correct=int(right.sum()),
            steps=int(np.count_nonzero(mask)),
            gradient=gradient,
            h=hs[-1],
            c=cs[-1],
        )

    def _backward(
        self,
        x: np.ndarray,
        gates: np.ndarray,
        hs: np.ndarray,
        cs: np.ndarray,
        tanh_c: np.ndarray,
        d_logit: np.ndarray,
    ) -> np.ndarray:
        unroll, rows, inputs = x.shape
        n, one = self.hidden, self.flat.dtype.type(1)
        i, f = gates[..., :n], gates[..., n : 2 * n]
        o, g = gates[..., 2 * n : 3 * n], gates[..., 3 * n :]
        # Derivatives of the gates and of h by c, for all steps at once.
        slope = np.empty_like(gates)
        slope[..., : 3 * n] = gates[..., : 3 * n] * (one - gates[..., : 3 * n])
        slope[..., 3 * n :] = one - g * g
        h_by_c = o * (one - tanh_c * tanh_c)
        d_h_out = d_logit[..., None] * self.wo
        d_gates = np.empty_like(gates)
        d_h = np.zeros((rows, n), self.flat.dtype)
        d_c = np.zeros((rows, n), self.flat.dtype)
        wh_t = np.ascontiguousarray(self.wh.T)
        for t in range(unroll - 1, -1, -1):
            d_h += d_h_out[t]
            d_c += d_h * h_by_c[t]
            d_gate = d_gates[t]
            np.multiply(d_c, g[t], out=d_gate[:, :n])
            np.multiply(d_c, cs[t], out=d_gate[:, n : 2 * n])
            np.multiply(d_h, tanh_c[t], out=d_gate[:, 2 * n : 3 * n])
            np.multiply(d_c, i[t], out=d_gate[:, 3 * n :])
            d_gate *= slope[t]
            d_h = d_gate @ wh_t
            d_c *= f[t]

        flat = np.zeros_like(self.flat)
        d = self._named(flat)
        d_all = d_gates.reshape(unroll * rows, 4 * n)
        d["wx"][...] = x.reshape(-1, inputs).T @ d_all
        d["wh"][...] = hs[:-1].reshape(unroll * rows, n).T @ d_all
        d["b"][...] = d_all.sum(0)
        d["wo"][...] = d_logit.reshape(-1) @ hs[1:].reshape(unroll * rows, n)
        d["bo"][...] = d_logit.sum()
        return flat


class Adam:
    """The Adam optimizer over one flat array, with the gradient's norm limited to `clip`."""

    def __init__(self, parameters: np.ndarray, rate: float, clip: float = 1.0) -> None:
        self.parameters = parameters
        self.rate, self.clip = rate, clip
        self.mean = np.zeros_like(parameters)
        self.square = np.zeros_like(parameters)
        self.count = 0

    def step(self, gradient: np.ndarray) -> None:
        """Changes the parameters in place."""
        norm = float(np.sqrt(np.square(gradient, dtype=np.float64).sum()))
        if norm > self.clip:
            gradient = gradient * gradient.dtype.type(self.clip / norm)
        self.count += 1
        self.mean += gradient.dtype.type(0.1) * (gradient - self.mean)
        self.square += gradient.dtype.type(0.001) * (gradient * gradient - self.square)
        rate = self.rate * np.sqrt(1 - 0.999**self.count) / (1 - 0.9**self.count)
        move = self.mean / (np.sqrt(self.square) + gradient.dtype.type(1e-8))
        self.parameters -= gradient.dtype.type(rate) * move
