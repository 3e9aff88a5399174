"""The numbers beside a relevance map: how much of it lies on faces, and how concentrated it is."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from msademo.post_results import Overlay


def face_cover(size: tuple[int, int], faces: Sequence[Sequence[float]], box: tuple[int, int, int, int], grid: tuple[int, int]) -> np.ndarray:
    """size (H, W) of the picture, face boxes and the grid's box in its pixels (x1 y1 x2 y2) -> (P,) the share of each patch under a face."""
    under = np.zeros(size, np.float64)
    for x1, y1, x2, y2 in faces:
        under[max(0, int(np.floor(y1))):max(0, int(np.ceil(y2))), max(0, int(np.floor(x1))):max(0, int(np.ceil(x2)))] = 1
    x1, y1, x2, y2 = (int(v) for v in box)
    total = np.pad(under[y1:y2, x1:x2].cumsum(0).cumsum(1), ((1, 0), (1, 0)))        # sums over rectangles, by their corners
    rows, columns = (np.linspace(0, total.shape[axis] - 1, grid[axis] + 1) for axis in (0, 1))
    corner = bilinear(total, rows, columns)
    area = np.outer(np.diff(rows), np.diff(columns))
    return ((corner[1:, 1:] - corner[1:, :-1] - corner[:-1, 1:] + corner[:-1, :-1]) / np.maximum(area, 1e-12)).ravel()


def bilinear(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The table read at fractional rows and columns, (len(rows), len(columns)); a patch's edge need not fall between two pixels."""
    for axis, at in ((0, rows), (1, columns)):
        low = np.floor(at).astype(int).clip(0, table.shape[axis] - 1)
        high = np.minimum(low + 1, table.shape[axis] - 1)
        part = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        table = table.take(low, axis) * (1 - part) + table.take(high, axis) * part
    return table


def overlay(shares: np.ndarray, hidden: np.ndarray, on_face: np.ndarray | None, similarity: float | None) -> Overlay:
    """shares (P,): relevance summing to 1 or 0; hidden (P,) bool; on_face (P,) the share of each patch under a face."""
    left, positive = int((~hidden).sum()), shares[shares > 0]
    entropy = float(-(positive * np.log(positive)).sum())
    concentration = 1 - entropy / np.log(left) if left > 1 and len(positive) else float(len(positive) > 0)
    half = int(np.searchsorted(np.sort(shares)[::-1].cumsum(), 0.5 * shares.sum() - 1e-9) + 1) if len(positive) else 0
    faces = None if on_face is None else float(shares @ on_face)
    return Overlay(shares, similarity, faces, None if on_face is None else float(on_face.mean()), float(np.clip(concentration, 0, 1)), half)
