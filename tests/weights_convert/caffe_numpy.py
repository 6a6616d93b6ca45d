"""Caffe's layers in plain NumPy loops, in Caffe's layout, as its C++ sources state them."""

import math

import numpy as np


def pooling(x, method, kernel, stride, pad):
    n, channels, height, width = x.shape
    out_h, out_w = (math.ceil((s + 2 * pad - kernel) / stride) + 1 for s in (height, width))
    if pad:
        out_h -= (out_h - 1) * stride >= height + pad
        out_w -= (out_w - 1) * stride >= width + pad
    y = np.full((n, channels, out_h, out_w), np.finfo(np.float32).min, np.float32)
    for i in range(out_h):
        for j in range(out_w):
            top, left = i * stride - pad, j * stride - pad
            bottom, right = min(top + kernel, height + pad), min(left + kernel, width + pad)
            size = (bottom - top) * (right - left)
            window = x[:, :, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
            if method == "AVE":
                y[:, :, i, j] = window.sum((2, 3)) / size
            elif window.size:
                y[:, :, i, j] = window.max((2, 3))
    return y


def lrn(x, size, alpha, beta, k):
    y = np.empty_like(x)
    half = (size - 1) // 2
    for c in range(x.shape[1]):
        window = x[:, max(c - half, 0) : c + half + 1]
        y[:, c] = x[:, c] / (k + alpha / size * (window**2).sum(1)) ** beta
    return y


def deconvolution(x, kernel, bias, stride, pad, groups=1):
    """Scatter each input times its kernel; kernel (I, O/g, kh, kw)."""
    _, inputs, height, width = x.shape
    _, outputs, kh, kw = kernel.shape
    full_h, full_w = (height - 1) * stride[0] + kh, (width - 1) * stride[1] + kw
    y = np.zeros((1, outputs * groups, full_h, full_w))
    for c in range(inputs):
        group = c // (inputs // groups)
        for o in range(outputs):
            for i in range(height):
                for j in range(width):
                    a, b = i * stride[0], j * stride[1]
                    y[0, group * outputs + o, a : a + kh, b : b + kw] += (
                        x[0, c, i, j] * kernel[c, o]
                    )
    y = y[:, :, pad[0] : full_h - pad[0], pad[1] : full_w - pad[1]]
    return (y + bias[None, :, None, None]).astype(np.float32)


def batch_norm(x, mean, variance, factor, eps):
    mean, variance = mean / factor, variance / factor
    return (x - mean[None, :, None, None]) / np.sqrt(variance + eps)[None, :, None, None]


def lstm(x, marks, blobs, static=None):
    """x (T, N, D), marks (T, N), blobs as Caffe orders them; the outputs (T, N, H)."""
    recurrent = blobs[-1]
    hidden = recurrent.shape[1]
    h, c = np.zeros((x.shape[1], hidden)), np.zeros((x.shape[1], hidden))
    outputs = []
    for now, mark in zip(x, marks, strict=True):
        mark = mark[:, None]
        gates = now @ blobs[0].T + blobs[1] + (mark * h) @ recurrent.T
        if static is not None:
            gates = gates + static @ blobs[2].T
        i, f, o = (sigmoid(gates[:, k * hidden : (k + 1) * hidden]) for k in range(3))
        c = mark * f * c + i * np.tanh(gates[:, 3 * hidden :])
        h = o * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))
