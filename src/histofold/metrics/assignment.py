"""The best one-to-one assignment of a sparse table: what is certain is settled first, the rest goes to SciPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def assign(rows: Integers, columns: Integers, weight: Floats) -> Integers:
    """Choose pairs so that no row and no column is used twice and their weights sum to the most.

    Args:
        rows: (k,) row of each pair.
        columns: (k,) column of each pair; a pair occurs once.
        weight: (k,) above 0.

    Returns:
        Indices of the chosen pairs, ascending.
    """
    open_pairs = np.arange(len(rows), dtype=np.int64)
    chosen: list[Integers] = []
    while len(open_pairs):
        sure = open_pairs[_certain(rows[open_pairs], columns[open_pairs], weight[open_pairs])]
        if not len(sure):
            chosen.append(open_pairs[_solve(rows[open_pairs], columns[open_pairs], weight[open_pairs])])
            break
        chosen.append(sure)
        taken = np.isin(rows[open_pairs], rows[sure]) | np.isin(columns[open_pairs], columns[sure])
        open_pairs = open_pairs[~taken]
    return np.sort(np.concatenate(chosen)) if chosen else open_pairs


def _certain(rows: Integers, columns: Integers, weight: Floats) -> NDArray[np.bool_]:
    """Pairs that outweigh the best other pair of their row and the best other pair of their column together.

    Some best assignment holds them: it gains nothing by using those two others in their place. The first of equals is
    preferred, so that no two certain pairs share a row or a column.
    """
    by_row, other_row = _leaders(rows, weight)
    by_column, other_column = _leaders(columns, weight)
    return by_row & by_column & (weight >= other_row + other_column)


def _leaders(owners: Integers, weight: Floats) -> tuple[NDArray[np.bool_], Floats]:
    """Which pairs are their owner's heaviest (the first of equals), and the weight of the owner's second heaviest."""
    _, owner = np.unique(owners, return_inverse=True)
    order = np.lexsort((-weight, owner))
    first = np.ones(len(order), bool)
    first[1:] = owner[order[1:]] != owner[order[:-1]]
    second = np.zeros(owner.max() + 1)
    after = np.flatnonzero(first) + 1
    after = after[after < len(order)]
    after = after[~first[after]]
    second[owner[order[after]]] = weight[order[after]]
    leads = np.zeros(len(order), bool)
    leads[order] = first
    return leads, second[owner]


def _solve(rows: Integers, columns: Integers, weight: Floats) -> Integers:
    """Exact assignment by the sparse Jonker-Volgenant algorithm; each row may stay alone at the cost of its weight."""
    row_values, row = np.unique(rows, return_inverse=True)
    column_values, column = np.unique(columns, return_inverse=True)
    n, m = len(row_values), len(column_values)
    top = float(weight.max()) + 1.0
    # Column m + i is a dummy that only row i may take: a full matching then always exists.
    graph = csr_matrix(
        (
            np.concatenate([top - weight, np.full(n, top)]),
            (np.concatenate([row, np.arange(n)]), np.concatenate([column, m + np.arange(n)])),
        ),
        shape=(n, m + n),
    )
    matched_rows, matched_columns = min_weight_full_bipartite_matching(graph)
    partner = np.full(n, -1, np.int64)
    partner[matched_rows] = matched_columns
    return np.flatnonzero(partner[row] == column)
