"""Convolution at the speed of the machine: register tiles that walk over tables.

Every product of a convolution is a weight times a pixel, and three sums run over them
(the equations of course/layers/conv2d.py):

    y[n,f,pixel]   = b[f] + sum over taps   t of w[f,t] * x[n, at[pixel] + tap[t]]
    dx             the same sum, with dy in place of x, w turned around
    dw[f,t]        = sum over n, pixel of dy[n,f,pixel] * x[n, at[pixel] + tap[t]]

where x is one flat array, framed in zeros, at[pixel] is where the window of an output
pixel begins and tap[t] how far tap t = (c,u,v) lies behind it. Kernel size, stride,
padding, dilation and groups are in these two tables and nowhere else: see `Plan`.

Loops compute this in three ways, all of them `acc += number x vector`
(course/engine/tile.py):

    along filters   a tile is 6 pixels x 16 filters; the weights are packed so that the
                    filters of a tap lie side by side. Any geometry.
    along pixels    a tile is 6 filters x 16 pixels that lie side by side. For few filters,
                    or few taps, at stride 1; nothing is packed.
    weights         a tile is 6 taps x 16 filters; dy is turned so that the filters of a
                    pixel lie side by side. With few filters, 6 filters x 2 taps, and the
                    lanes are pixels.

and two more serve filters that see one channel each; with 3 x 3 taps, a vector of pixels
that is loaded serves the windows of three rows. 3 x 3 taps on many channels go to
course/engine/winograd.py, which needs fewer products; 1 x 1 taps, and windows side by side
that share no pixel, are products of matrices: course/engine/matmul.py.

(6 and 16 are those of float32 with AVX2.) A tile that hangs over the end of a table meets
the last entry again: it computes the same numbers twice and writes them twice.

Which thread does what changes no bit: a thread owns what it writes, and dw is summed over
fixed shares of the batch, then over the shares in order.
"""

from functools import lru_cache
from itertools import product
from threading import local
from typing import Any, NamedTuple

import numpy as np
from numba.np.unsafe.ndarray import to_fixed_tuple

from course.compiled import inside, job
from course.device import Array, get_threads
from course.engine.tile import (
    at_most,
    cols_at,
    each_col,
    each_lane,
    each_row,
    inner,
    lanes_at,
    load,
    meet,
    outer,
    pile,
    plus,
    pool,
    positive,
    rows_at,
    shape_of,
    slide,
    splat,
    store,
    tile_shape,
    times,
    total,
    transpose,
    unpool,
    unseen,
    weave,
    zeros,
    zeros_column,
    zeros_nine,
    zeros_row,
)
from course.launch import launch

BLOCK = 48  # pixels whose sums lie side by side before they are written as planes
LITTLE = 1 << 20  # products; below this a second thread costs more than it brings
CHUNK = 256  # taps that are added up in registers, then to the sum of the others
EVERYTHING = [slice(None)]
SLACK = 64  # numbers behind a framed image that a last vector may read
STRETCH = 256  # pixels whose dy stays in the first cache while the taps of dw go by


class Plan(NamedTuple):
    """Where a convolution finds what it multiplies: sizes, and places of tables.

    "Source" is what the windows slide over (x; dy for dx), "target" what is summed (y; dx).
    A plan is kept as one array of integers, `table`: first these numbers, then the tables,
    which are filled up to whole tiles with their last entry. So table[plan.at + k] is where
    window k begins.
    """

    N: int  # images
    S: int  # channels of the source
    T: int  # channels of the target
    G: int  # groups
    H: int  # height and width of a source plane,
    W: int
    RS: int  # in its frame, from one row to the next,
    CS: int  # and from one channel to the next
    framed: int  # 0 if there is no frame, and the source is read where it is
    image: int  # numbers in an image with its frame
    room: int  # and some more, to a whole cache line: what a frame takes of the workspace
    top: int  # where the plane begins in it
    left: int
    area: int  # numbers in a target plane
    columns: int  # and in a row of it
    relu: int  # 1 if what is below zero becomes zero
    pool: int  # 1 if the largest of every 2 x 2 goes to a second target
    shards: int  # fixed shares of the batch that dw is summed over
    stretch: int  # in w so many weights of a filter lie side by side,
    leap: int  # and the next ones so far behind
    windows: int  # entries of `at`, `near`, `past`
    at: int  # where the window of each target pixel begins, in a framed plane
    near: int  # the taps near to past - 1 of its window reach the plane; the others see
    past: int  # its frame above or below
    vectors: int  # entries of `run` to `run_past`
    run: int  # the same three for vectors of neighbouring pixels,
    run_to: int  # and where each is in a target plane
    run_near: int
    run_past: int
    taps: int  # entries of `tap` and `weight`
    tap: int  # how far each tap lies behind the window's begin, one row of taps after the
    weight: int  # other; and its weight behind the filter's first
    ordered: int  # `tap` in the order of w
    nine: int  # 1 if the taps are 3 x 3 neighbours, in a plane that is not too small
    weights: int  # entries of `line`
    line: int  # which tap each weight of a filter belongs to; one too far if to none
    fews: int  # entries of `few` and `few_start`
    few: int  # target channels, in blocks of tile rows that share a group,
    few_start: int  # and where the weights of each begin
    manys: int  # entries of `many` and `many_start`
    many: int  # the same in panels of tile widths
    many_start: int


SIZES = len(Plan._fields)
NINE = np.indices((3, 3)).reshape(2, 9).T  # (u, v) of the taps of a 3 x 3 window


# --- the loops ----------------------------------------------------------------------------


@inside
def read(table):
    """Return the sizes of the plan."""
    return Plan(*to_fixed_tuple(table, SIZES))


@inside
def _frame(framed, start, source, n, plan):
    """Copy image n of the source into its frame; the zeros around it stay.

    Four vectors at a time. Those past the end of a row are its last one again.
    """
    like = zeros_column(source)
    (count, _, lanes), side = shape_of(like), each_col(like)
    for c in range(plan.S):
        for h in range(plan.H):
            there = start + c * plan.CS + (h + plan.top) * plan.RS + plan.left
            here = ((n * plan.S + c) * plan.H + h) * plan.W
            if lanes <= plan.W:
                for j in range(0, plan.W, count * lanes):
                    vectors = at_most(times(each_row(like), lanes, j), plan.W - lanes)
                    pixels = load(like, source, times(vectors, 1, here), side)
                    store(pixels, framed, times(vectors, 1, there), side)
            else:
                for q in range(plan.W):
                    framed[there + q] = source[here + q]


@inside
def _clear(numbers, first, past):
    """Set the numbers first to past - 1 to zero."""
    cleared = numbers[first:past]
    for k in range(cleared.size):
        cleared[k] = 0


@inside
def _channels(channel, plan):
    """Return where the source channels of a target channel's group begin."""
    return channel // (plan.T // plan.G) * (plan.S // plan.G) * plan.CS


@inside
def _filters_times_pixels(acc, w, filters, weights, framed, pixels, begin, taps):
    """Add the products of filters x neighbouring pixels over the taps."""
    for t in range(taps.size):
        acc = outer(acc, w, filters, weights[t], framed, pixels, begin + taps[t])
    return acc


@inside
def _pixels_times_filters(acc, framed, windows, begin, taps, packed, panel):
    """Add the products of pixels x neighbouring filters over the taps."""
    sides, (_, width, _) = each_col(acc), shape_of(acc)
    for t in range(taps.size):
        acc = outer(acc, framed, windows, begin + taps[t], packed, sides, panel + t * width)
    return acc


@inside
def _taps_times_filters(acc, framed, taps, windows, turned, start):
    """Add the products of taps x neighbouring filters over the windows."""
    sides, (_, width, _) = each_col(acc), shape_of(acc)
    for p in range(windows.size):
        acc = outer(acc, framed, taps, windows[p], turned, sides, start + p * width)
    return acc


@inside
def _filters_times_taps(acc, spread, places, framed, begins, runs):
    """Add the products of filters x taps over vectors of pixels."""
    lanes = shape_of(acc)[2]
    for v in range(runs.size):
        acc = inner(acc, spread, places, v * lanes, framed, begins, runs[v])
    return acc


@job
def _along_pixels(target, pooled, source, w, b, work, table, share, shares):
    """Sum over taps, tiles of filters x neighbouring pixels.

    A share has (image, block), or pieces of them if there are few.
    """
    plan, like = read(table), zeros(target)
    rows = shape_of(like)[0]
    blocks, frame, framed_image = plan.fews // rows, share * plan.room, -1
    if plan.framed:
        _clear(work, frame, frame + plan.image)
    pieces = shares if plan.N * blocks < 4 * shares and not plan.pool else 1
    long = (plan.vectors // 2 + pieces - 1) // pieces * 2
    framed, items = work if plan.framed else source, plan.N * blocks * pieces
    for item in range(items * share // shares, items * (share + 1) // shares):
        n, k, piece = item // pieces // blocks, item // pieces % blocks, item % pieces
        if n != framed_image and plan.framed:
            _frame(work, frame, source, n, plan)
        framed_image = n
        filters = rows_at(like, table, plan.few + k * rows)
        weights = rows_at(like, table, plan.few_start + k * rows)
        planes = times(filters, plan.area, n * plan.T * plan.area)
        begin = frame if plan.framed else n * plan.image
        begin += _channels(table[plan.few + k * rows], plan)
        for v in range(piece * long, min((piece + 1) * long, plan.vectors), 2):
            pixels = cols_at(like, table, plan.run + v)
            places = cols_at(like, table, plan.run_to + v)
            near = min(table[plan.run_near + v], table[plan.run_near + v + 1])
            past = max(table[plan.run_past + v], table[plan.run_past + v + 1])
            acc = splat(like, b, filters)
            for first in range(near, past, CHUNK):
                if first > near:
                    store(acc, target, planes, places)
                    acc = like
                last = min(first + CHUNK, past)
                taps = table[plan.tap + first : plan.tap + last]
                these = table[plan.weight + first : plan.weight + last]
                acc = _filters_times_pixels(
                    acc, w, weights, these, framed, pixels, begin, taps
                )
                if first > near:
                    acc = plus(acc, target, planes, places)
            if plan.relu:
                acc = positive(acc)
            store(acc, target, planes, places)
        if plan.pool:
            last = table[plan.few + k * rows + rows - 1]
            _pool(pooled, target, table[plan.few + k * rows], last, n, plan)


@job
def _pack(packed, w, b, _, __, work, table, share, shares):
    """Put the biases, and the weights of each tap, side by side; a share has panels."""
    plan, like = read(table), zeros(packed)
    _, width, lanes = shape_of(like)
    panels, lines = plan.manys // width, plan.taps + 2
    for k in range(panels * share // shares, panels * (share + 1) // shares):
        for l in range(width):
            packed[k * lines * width + l] = b[table[plan.many + k * width + l]]
        for half in range(0, width, lanes):
            there, start = (
                (k * lines + 1) * width + half,
                plan.many_start + k * width + half,
            )
            filters = lanes_at(like, table, start)
            t, past, skipped = 0, plan.stretch, 0
            while t < plan.weights:
                if t + lanes <= past:
                    line = times(lanes_at(like, table, plan.line + t), width, there)
                    transpose(w, times(filters, 1, skipped + t), packed, line)
                    t += lanes
                else:
                    line = there + table[plan.line + t] * width
                    for l in range(lanes):
                        packed[line + l] = w[table[start + l] + skipped + t]
                    t += 1
                if t == past:
                    past, skipped = past + plan.stretch, skipped + plan.leap - plan.stretch


@job
def _along_filters(target, pooled, source, packed, _, work, table, share, shares):
    """Sum over taps, tiles of pixels x neighbouring filters; a share has (image, panel)."""
    plan, like = read(table), zeros(target)
    rows, width, _ = shape_of(like)
    panels, lines, framed_image = plan.manys // width, plan.taps + 2, -1
    sums = share * (plan.room + BLOCK * width)
    frame = sums + BLOCK * width
    if plan.framed:
        _clear(work, frame, frame + plan.image)
    framed, items = work if plan.framed else source, plan.N * panels
    sides, stack = each_col(like), times(each_row(like), width, sums)
    for item in range(items * share // shares, items * (share + 1) // shares):
        n, k = divmod(item, panels)
        if n != framed_image and plan.framed:
            _frame(work, frame, source, n, plan)
        framed_image = n
        many, panel = plan.many + k * width, k * lines * width
        begin = frame if plan.framed else n * plan.image
        begin += _channels(table[many], plan)
        for block in range(0, plan.area, BLOCK):
            count = min(BLOCK, plan.area - block)
            for first in range(0, plan.taps, CHUNK):
                for p in range(0, count, rows):
                    this, last = block + p, block + p + rows - 1
                    near = min(table[plan.near + this], table[plan.near + last])
                    past = max(table[plan.past + this], table[plan.past + last])
                    near, past = max(first, near), min(first + CHUNK, past)
                    windows = rows_at(like, table, plan.at + this)
                    here = times(stack, 1, p * width)
                    acc = like
                    if first == 0:
                        acc = load(like, packed, times(windows, 0, panel), sides)
                    line, taps = (
                        panel + (near + 1) * width,
                        table[plan.tap + near : plan.tap + past],
                    )
                    acc = _pixels_times_filters(
                        acc, framed, windows, begin, taps, packed, line
                    )
                    if first > 0:
                        acc = plus(acc, work, here, sides)
                    store(acc, work, here, sides)
            _unpack(target, n, block, count, work, sums, table, many, plan)
        if plan.pool:
            _pool(pooled, target, table[many], table[many + width - 1], n, plan)


@inside
def _unpack(target, n, block, count, work, sums, table, many, plan):
    """Write a block of sums[pixel][filter] as planes of the target."""
    like, zero = zeros(target), target.dtype.type(0)
    numbers, (_, width, lanes) = each_lane(like), shape_of(like)
    if plan.relu:
        these = work[sums : sums + count * width]
        for k in range(these.size):
            these[k] = zero if these[k] <= zero else these[k]
    whole = count // lanes * lanes
    for half in range(0, width, lanes):
        planes = times(
            lanes_at(like, table, many + half), plan.area, n * plan.T * plan.area
        )
        for pixel in range(0, whole, lanes):
            here = times(numbers, width, sums + pixel * width + half)
            transpose(work, here, target, times(planes, 1, block + pixel))
        for l in range(half, half + lanes):
            plane = (n * plan.T + table[many + l]) * plan.area + block
            for pixel in range(whole, count):
                target[plane + pixel] = work[sums + pixel * width + l]


@inside
def _turn(work, turned, dy, n, block, count, table, many, plan):
    """Write a stretch of the planes of dy as turned[pixel][filter]."""
    like = zeros(dy)
    numbers, (_, width, lanes) = each_lane(like), shape_of(like)
    whole = count // lanes * lanes
    for half in range(0, width, lanes):
        planes = times(
            lanes_at(like, table, many + half), plan.area, n * plan.T * plan.area
        )
        for pixel in range(0, whole, lanes):
            there = times(numbers, width, turned + pixel * width + half)
            transpose(dy, times(planes, 1, block + pixel), work, there)
        for l in range(half, half + lanes):
            plane = (n * plan.T + table[many + l]) * plan.area + block
            for pixel in range(whole, count):
                work[turned + pixel * width + l] = dy[plane + pixel]


@job
def _weights(sums, x, dy, _, __, work, table, share, shares):
    """Sum over images and pixels, tiles of taps x neighbouring filters.

    A share has (shard, panel): sums[shard][panel][1 + tap][filter]; line 0 is for db.
    """
    plan, like = read(table), zeros(sums)
    rows, width, _ = shape_of(like)
    panels, taps = plan.manys // width, plan.taps
    turned = share * (plan.room + STRETCH * width)
    frame = turned + STRETCH * width
    if plan.framed:
        _clear(work, frame, frame + plan.image)
    framed, sides, stack = work if plan.framed else x, each_col(like), each_row(like)
    items = plan.shards * panels
    begin, end = items * share // shares, items * (share + 1) // shares
    _clear(sums, begin * (taps + 1) * width, end * (taps + 1) * width)
    for shard in range(begin // panels, (end + panels - 1) // panels):
        k0, k1 = max(begin - shard * panels, 0), min(end - shard * panels, panels)
        for n in range(plan.N * shard // plan.shards, plan.N * (shard + 1) // plan.shards):
            if plan.framed:
                _frame(work, frame, x, n, plan)
            for k in range(k0, k1):
                many, line = (
                    plan.many + k * width,
                    (shard * panels + k) * (taps + 1) * width,
                )
                channels = frame if plan.framed else n * plan.image
                channels += _channels(table[many], plan)
                for block in range(0, plan.area, STRETCH):
                    count = min(STRETCH, plan.area - block)
                    _turn(work, turned, dy, n, block, count, table, many, plan)
                    _add_lines(sums, line, work, turned, count, width)
                    windows = table[plan.at + block : plan.at + block + count]
                    for t in range(0, taps, rows):
                        begins = times(rows_at(like, table, plan.ordered + t), 1, channels)
                        acc = _taps_times_filters(
                            like, framed, begins, windows, work, turned
                        )
                        here = line + (t + 1) * width
                        lines = times(stack, width, here)
                        if t + rows <= taps:
                            store(plus(acc, sums, lines, sides), sums, lines, sides)
                        else:  # the last taps, through what is no longer needed
                            store(acc, work, times(stack, width, turned), sides)
                            for i in range((taps - t) * width):
                                sums[here + i] += work[turned + i]


@inside
def _add_lines(sums, line, work, lines, count, width):
    """Add so many lines of the workspace to one line of sums, a tile at a time."""
    acc = zeros(work)
    rows, sides = shape_of(acc)[0], each_col(acc)
    whole = count // rows * rows
    for p in range(0, whole, rows):
        acc = plus(acc, work, times(each_row(acc), width, lines + p * width), sides)
    pile(acc, sums, times(sides, 1, line))
    for p in range(whole, count):
        for l in range(width):
            sums[line + l] += work[lines + p * width + l]


@job
def _collect(dw, db, sums, _, __, work, table, share, shares):
    """Add up the shards, in order, and put the weights where they belong."""
    plan, like = read(table), zeros(dw)
    numbers, (_, width, lanes) = each_lane(like), shape_of(like)
    panels, size = plan.manys // width, (plan.taps + 1) * width
    for k in range(panels * share // shares, panels * (share + 1) // shares):
        panel, start = k * size, plan.many_start + k * width
        for shard in range(1, plan.shards):
            these, more = sums[panel : panel + size], sums[panel + shard * panels * size :]
            for i in range(these.size):
                these[i] += more[i]
        for l in range(width):
            db[table[plan.many + k * width + l]] = sums[panel + l]
        for half in range(0, width, lanes):
            filters, t = lanes_at(like, table, start + half), 0
            while t < plan.taps:
                line = panel + (t + 1) * width + half
                if t + lanes <= plan.taps:
                    transpose(sums, times(numbers, width, line), dw, times(filters, 1, t))
                    t += lanes
                else:
                    for l in range(lanes):
                        dw[table[start + half + l] + t] = sums[line + l]
                    t += 1


@inside
def _pool(pooled, target, first, last, n, plan):
    """Keep the largest number of every 2 x 2 in channels first to last."""
    W = plan.columns
    rows = plan.area // W // 2
    for c in range(n * plan.T + first, n * plan.T + last + 1):
        pool_rows(pooled, c * rows * (W // 2), target, c * plan.area, rows, W)


@inside
def pool_rows(pooled, z, target, y, rows, W):
    """Write the largest of every 2 x 2 from target[y] on, row by row; NaN is largest."""
    lanes, half = shape_of(zeros(target))[2], W // 2
    for _ in range(rows):
        j = 0
        while half >= lanes and j < half:
            j = min(j, half - lanes)
            pool(pooled, z + j, target, y + 2 * j, W)
            j += lanes
        while j < half:
            best = target[y + 2 * j]
            for place in (y + 2 * j + 1, y + W + 2 * j, y + W + 2 * j + 1):
                pixel = target[place]
                best = pixel if pixel > best or pixel != pixel else best
            pooled[z + j] = best
            j += 1
        y, z = y + 2 * W, z + half


@job
def _together(dx, kinds, _, __, ___, work, table, share, shares):
    """Put the pixels of dx, kind by kind, where they belong; a share has planes."""
    planes, H, W, SH, SW = table[0], table[1], table[2], table[3], table[4]
    lanes = shape_of(zeros(dx))[2]
    for plane in range(planes * share // shares, planes * (share + 1) // shares):
        for h in range(H):
            row, j = (plane * H + h) * W, 0
            kind = 5 + h % SH * min(SW, W) * 3
            if SW == 2 and 2 * lanes <= W:
                one = table[kind] + plane * table[kind + 1] + h // SH * table[kind + 2]
                two = table[kind + 3] + plane * table[kind + 4] + h // SH * table[kind + 5]
                while j < W // 2:
                    j = min(j, W // 2 - lanes)
                    weave(dx, row + 2 * j, kinds, one + j, two + j)
                    j += lanes
            for v in range(min(SW, W)):
                place = kind + 3 * v
                here = table[place] + plane * table[place + 1] + h // SH * table[place + 2]
                for k in range(j, table[place + 2]):
                    dx[row + k * SW + v] = kinds[here + k]


@job
def _pool_relu_dx(dy, dz, y, _, __, work, table, share, shares):
    """Send dz to the first largest of every 2 x 2 of y, if above 0; a share has planes."""
    plan, lanes, zero = read(table), shape_of(zeros(dy))[2], dy.dtype.type(0)
    W, area = plan.columns, plan.area
    rows, half = area // W // 2, W // 2
    end, even = plan.N * (share + 1) // shares * area, area == 4 * rows * half
    for plane in range(plan.N * share // shares, plan.N * (share + 1) // shares):
        if not even:
            _clear(dy, plane * area, (plane + 1) * area)
        for i in range(rows):
            here, k, j = plane * area + 2 * i * W, (plane * rows + i) * half, 0
            while half >= lanes and j < half:
                j = min(j, half - lanes)
                unpool(dy, y, here + 2 * j, W, dz, k + j)
                j += lanes
            if even and j < half and k + lanes <= dz.size and here + W + 2 * lanes <= end:
                unpool(dy, y, here, W, dz, k)  # too far, but the rest is written later
                j = half
            while j < half:
                best, at = y[here + 2 * j], here + 2 * j
                for place in (here + 2 * j + 1, here + W + 2 * j, here + W + 2 * j + 1):
                    pixel = y[place]
                    if pixel > best or (pixel != pixel and best == best):
                        best, at = pixel, place
                    dy[place] = zero
                dy[here + 2 * j] = zero
                dy[at] = zero if best <= zero else dz[k + j]
                j += 1


@inside
def _spread(work, spread, dy, plane, table, plan):
    """Write a plane of dy as the vectors of the plan, each pixel once, else zeros.

    Return the sum of the pixels.
    """
    like, zero = zeros_row(dy), dy.dtype.type(0)
    _, width, lanes = shape_of(like)
    first, side = each_row(like), each_col(like)
    for v in range(0, plan.vectors, width // lanes):
        pixels = cols_at(like, table, plan.run_to + v)
        acc = load(like, dy, times(first, 0, plane), pixels)
        store(acc, work, times(first, 0, spread + v * lanes), side)
    to = table[plan.run_to : plan.run_to + plan.vectors]
    for v in range(1, plan.vectors):
        again = to[v - 1] + lanes - to[v]  # pixels that the vector before has, too
        if again > 0:
            vector = work[spread + v * lanes : spread + (v + 1) * lanes]
            for l in range(lanes):
                vector[l] = zero if l < again else vector[l]
    found = zero
    written = work[spread : spread + plan.vectors * lanes]
    for k in range(written.size):
        found += written[k]
    return found


@job
def _few_weights(sums, x, dy, _, __, work, table, share, shares):
    """Sum over images and pixels, tiles of few filters x taps; the lanes are pixels.

    A share has (shard, block): sums[shard][filter][tap, and one more for db].
    """
    plan, like = read(table), zeros(sums)
    rows, width, lanes = shape_of(like)
    cols, long, blocks = width // lanes, plan.vectors * lanes, plan.fews // rows
    spread = share * (plan.room + rows * (long + width))
    small, frame = spread + rows * long, spread + rows * (long + width)
    if plan.framed:
        _clear(work, frame, frame + plan.image)
    framed, items, size = work if plan.framed else x, plan.shards * blocks, plan.taps + 1
    places, runs = (
        times(each_row(like), long, spread),
        table[plan.run : plan.run + plan.vectors],
    )
    for item in range(items * share // shares, items * (share + 1) // shares):
        shard, k = divmod(item, blocks)
        few = table[plan.few + k * rows : plan.few + (k + 1) * rows]
        count = few[rows - 1] - few[0] + 1  # the last ones may be one filter again
        part = shard * plan.T + few[0]
        _clear(sums, part * size, (part + count) * size)
        for n in range(plan.N * shard // plan.shards, plan.N * (shard + 1) // plan.shards):
            if plan.framed:
                _frame(work, frame, x, n, plan)
            for p in range(rows):
                plane = (n * plan.T + few[p]) * plan.area
                found = _spread(work, spread + p * long, dy, plane, table, plan)
                if p < count:
                    sums[(part + p) * size + plan.taps] += found
            channels = frame if plan.framed else n * plan.image
            channels += _channels(few[0], plan)
            for t in range(0, plan.taps, cols):
                begins = times(cols_at(like, table, plan.ordered + t), 1, channels)
                acc = _filters_times_taps(like, work, places, framed, begins, runs)
                total(acc, work, times(each_row(like), cols, small), 1)
                for p in range(count):
                    for q in range(min(cols, plan.taps - t)):
                        sums[(part + p) * size + t + q] += work[small + p * cols + q]


@inside
def _nine_taps(target, n, framed, begin, w, b, table, plan):
    """Sum over 3 x 3 taps in plane n, where a row of pixels serves the windows of three.

    Tiles are four rows x a vector. The last ones meet some pixels again.
    """
    column, nine = zeros_column(target), zeros_nine(target)
    (rows, _, lanes), side = shape_of(column), each_col(column)
    bottom, right = plan.area // plan.columns - rows, plan.columns - lanes
    channel, begin = n % b.size, begin + table[plan.run] + table[plan.tap]
    taps = splat(nine, w, times(rows_at(nine, table, plan.weight), 1, channel * 9))
    bias = splat(column, b, times(each_row(column), 0, channel))
    for i in range(0, bottom + rows, rows):
        i = min(i, bottom)
        lines = times(each_row(column), plan.columns, n * plan.area + i * plan.columns)
        for j in range(0, plan.columns, lanes):
            j = min(j, right)
            acc = slide(bias, taps, framed, begin + i * plan.RS + j, plan.RS)
            if plan.relu:
                acc = positive(acc)
            store(acc, target, times(lines, 1, j), side)


@inside
def _nine_weights(work, small, dy, n, framed, begin, table, plan):
    """Sum plane n of dy times x for 3 x 3 taps, as above; return the sum of the plane."""
    column, nine = zeros_column(dy), zeros_nine(dy)
    (rows, _, lanes), side, acc = shape_of(column), each_col(column), nine
    bottom, right = plan.area // plan.columns - rows, plan.columns - lanes
    for i in range(0, bottom + rows, rows):
        above, i = i - min(i, bottom), min(i, bottom)
        lines = times(each_row(column), plan.columns, n * plan.area + i * plan.columns)
        for j in range(0, plan.columns, lanes):
            before, j = j - min(j, right), min(j, right)
            pixels = load(column, dy, times(lines, 1, j), side)
            if above + before > 0:
                pixels = unseen(pixels, above, before)
            acc = meet(pixels, acc, framed, begin + i * plan.RS + j, plan.RS)
    total(acc, work, times(each_row(nine), 1, small), 1)
    found, plane = dy.dtype.type(0), dy[n * plan.area : (n + 1) * plan.area]
    for k in range(plane.size):
        found += plane[k]
    return found


@job
def _depthwise(target, pooled, source, w, b, work, table, share, shares):
    """Sum over taps where every channel has its own filter, a long row of pixels at a time.

    A share has planes; to the plan each plane is an image.
    """
    plan, like, frame = read(table), zeros_row(target), share * read(table).room
    _, width, lanes = shape_of(like)
    if plan.framed:
        _clear(work, frame, frame + plan.image)
    framed, first = work if plan.framed else source, each_row(like)
    taps = table[plan.tap : plan.tap + plan.taps]
    order = table[plan.weight : plan.weight + plan.taps]
    for n in range(plan.N * share // shares, plan.N * (share + 1) // shares):
        if plan.framed:
            _frame(work, frame, source, n, plan)
        channel, plane = times(first, 0, n % b.size), times(first, 0, n * plan.area)
        weights, begin = (
            times(channel, plan.taps, 0),
            frame if plan.framed else n * plan.image,
        )
        if plan.nine:
            _nine_taps(target, n, framed, begin, w, b, table, plan)
        for v in range(0, 0 if plan.nine else plan.vectors, width // lanes):
            pixels = cols_at(like, table, plan.run + v)
            acc = splat(like, b, channel)
            acc = _filters_times_pixels(acc, w, weights, order, framed, pixels, begin, taps)
            if plan.relu:
                acc = positive(acc)
            store(acc, target, plane, cols_at(like, table, plan.run_to + v))
        if plan.pool:
            _pool(pooled, target, 0, 0, n, plan)


@job
def _depthwise_weights(dw, db, x, dy, _, work, table, share, shares):
    """Sum dy times x over images and pixels, many taps at a time; a share has channels."""
    plan, like, C = read(table), zeros_row(dw), db.size
    _, width, lanes = shape_of(like)
    cols, long, taps = width // lanes, plan.vectors * lanes, plan.taps
    spread = share * (plan.room + long + width)
    small, frame = spread + long, spread + long + width
    if plan.framed:
        _clear(work, frame, frame + plan.image)
    framed, first = work if plan.framed else x, each_row(like)
    runs = table[plan.run : plan.run + plan.vectors]
    for c in range(C * share // shares, C * (share + 1) // shares):
        _clear(dw, c * taps, (c + 1) * taps)
        db[c] = 0
        for n in range(c, plan.N, C):
            if plan.framed:
                _frame(work, frame, x, n, plan)
            begin = frame if plan.framed else n * plan.image
            if plan.nine:
                db[c] += _nine_weights(work, small, dy, n, framed, begin, table, plan)
                for t in range(9):
                    dw[c * 9 + t] += work[small + t]
                continue
            db[c] += _spread(work, spread, dy, n * plan.area, table, plan)
            for t in range(0, taps, cols):
                begins = times(cols_at(like, table, plan.ordered + t), 1, begin)
                places = times(first, 0, spread)
                acc = _filters_times_taps(like, work, places, framed, begins, runs)
                total(acc, work, times(first, 0, small), 1)
                for q in range(min(cols, taps - t)):
                    dw[c * taps + t + q] += work[small + q]


# --- the tables ---------------------------------------------------------------------------


def whole(table: Any, multiple: int) -> Array:
    """Return the table, filled up with its last entry to a multiple of so many."""
    table = np.asarray(table, np.int64)
    return np.concatenate([table, np.repeat(table[-1:], -len(table) % multiple)])


def _owners(G: int, size: int, per_group: int, step: int, group_step: int):
    """Return channels in blocks of `size` that share a group, and where weights begin."""
    parts = [whole(np.arange(per_group) + g * per_group, size) for g in range(G)]
    channels = np.concatenate(parts)
    start = channels % per_group * step + channels // per_group * group_step
    return channels, start


def _plan(dtype, N, S, T, G, sizes, pixels, vectors, taps, weights, steps, extras):
    """Return the plan, and it with its tables as one array; the taps come row by row."""
    shape, (relu, pool) = tile_shape(dtype), extras
    few, few_start = _owners(G, shape.rows, *steps)
    many, many_start = _owners(G, shape.width, *steps)
    count, stretch, leap = weights
    tap, weight, rank = (np.asarray(k, np.int64) for k in taps)
    line = np.full(count, len(tap))
    line[rank] = np.arange(len(tap))
    shards = 1 if len(many) >= 4 * shape.width else min(N, 8)
    RS, area, columns = sizes[2], *sizes[-2:]
    neighbours = tap.size == 9 and np.array_equal(tap - tap[0], NINE @ (RS, 1))
    nine = int(neighbours and len(vectors[0]) > 0 and area >= 4 * columns)
    pixels = [whole(k, BLOCK) for k in pixels]
    vectors = [whole(k, shape.registers // 2) for k in vectors]
    numbers = [N, S, T, G, *sizes, relu, pool, shards, stretch, leap]
    groups = (
        (len(pixels[0]), pixels),
        (len(vectors[0]), vectors),
        (len(tap), [tap, weight, whole(tap[np.argsort(rank)], BLOCK)]),
        (nine, []),
        (len(line), [line]),
        (len(few), [few, few_start]),
        (len(many), [many, many_start]),
    )
    place, tables = SIZES, []
    for length, group in groups:
        numbers.append(length)
        for k in group:
            numbers.append(place)
            tables.append(k)
            place += len(k)
    return Plan(*map(int, numbers)), np.concatenate([np.array(numbers, np.int64), *tables])


def _layout(S: int, H: int, W: int, HP: int, WP: int, top: int, left: int):
    """Return the steps from row to row and channel to channel, and sizes for the plan.

    In a frame the same row of all channels comes before the next row: then what a window
    sees lies close together, in few pages of memory.
    """
    framed = (H, W) != (HP, WP)
    RS, CS = (S * WP, WP) if framed else (W, H * W)
    image = S * HP * WP
    room = -(-image // 16) * 16 + SLACK
    return RS, CS, (H, W, RS, CS, int(framed), image, room, top, left)


def _vectors(pixels: tuple, rows: int, cols: int, dtype: Any) -> list[Array]:
    """Return the tables of pixels for vectors that cover the rows of a plane.

    The last one of a row ends where the row ends, and meets some pixels again.
    """
    lanes = tile_shape(dtype).lanes
    firsts = [*range(0, cols - lanes, lanes), cols - lanes] if cols >= lanes else []
    place = np.add.outer(np.arange(rows) * cols, np.array(firsts, int)).ravel()
    at, near, past = (table[place] for table in pixels)
    return [at, place, near, past]


@lru_cache(maxsize=256)
def forward_plan(
    dtype, N, C, H, W, F, kernel, stride, frame, dilation, G, columns=0, relu=0, pool=0
) -> tuple[Plan, Array]:
    """Return the plan of y, and of dw; `columns` is the width of y, unless seen flat."""
    (KH, KW), (SH, SW), (DH, DW) = kernel, stride, dilation
    (top, bottom), (left, right) = frame
    HP, WP = H + top + bottom, W + left + right
    HO, WO = (HP - DH * (KH - 1) - 1) // SH + 1, (WP - DW * (KW - 1) - 1) // SW + 1
    CG, FG = C // G, F // G
    i, j = np.divmod(np.arange(HO * WO), WO)
    RS, CS, sizes = _layout(C, H, W, HP, WP, top, left)
    near = np.clip(-((i * SH - top) // DH), 0, KH)  # the first row of taps below the top
    past = np.clip(-((i * SH - top - H) // DH), 0, KH)
    pixels = i * SH * RS + j * SW, near * CG * KW, past * CG * KW
    u, c, v = np.indices((KH, CG, KW)).reshape(3, -1)
    line = (c * KH + u) * KW + v
    return _plan(
        *(dtype, N, C, F, G, (*sizes, HO * WO, columns or WO)),
        *(pixels, _vectors(pixels, HO, WO if SW == 1 else 0, dtype)),
        (c * CS + u * DH * RS + v * DW, line, line),
        *((CG * KH * KW, CG * KH * KW, 0), (FG, CG * KH * KW, FG * CG * KH * KW)),
        (relu, pool),
    )


@lru_cache(maxsize=256)
def dx_plans(dtype, N, C, H, W, F, kernel, stride, frame, dilation, G) -> dict:
    """Return the plans of dx: (a, b) -> plan for the pixels [a::SH, b::SW].

    Pixel p of x meets tap u of window i if p + top = i*SH + u*DH. Pixels with the same
    remainder of p + top by SH meet the same taps, and their windows move with them.
    """
    (KH, KW), (SH, SW), (DH, DW) = kernel, stride, dilation
    (top, bottom), (left, right) = frame
    HO = (H + top + bottom - DH * (KH - 1) - 1) // SH + 1
    WO = (W + left + right - DW * (KW - 1) - 1) // SW + 1
    above, before = DH * (KH - 1) // SH, DW * (KW - 1) // SW
    HP = above + max(HO, (H - 1 + top) // SH + 1)
    WP = before + max(WO, (W - 1 + left) // SW + 1)
    CG, FG = C // G, F // G
    RS, CS, sizes = _layout(F, HO, WO, HP, WP, above, before)
    turned, plans = (range(KH)[::-1], range(KW)[::-1]), {}
    for a, b in product(range(min(SH, H)), range(min(SW, W))):
        rows, cols = np.arange(a, H, SH), np.arange(b, W, SW)
        us = np.array([u for u in turned[0] if (u * DH - top - a) % SH == 0], int)
        vs = np.array([v for v in turned[1] if (v * DW - left - b) % SW == 0], int)
        p, q = (k.ravel() for k in np.meshgrid(rows, cols, indexing="ij"))
        i, j = (p + top) // SH, (q + left) // SW  # the window that tap 0 meets
        up = -(us * DH // SH)
        near = np.searchsorted(up, -i) * FG * len(vs)
        past = np.searchsorted(up, HO - i) * FG * len(vs)
        pixels = (i + above) * RS + j + before, near, past
        u, f, v = (k.ravel() for k in np.meshgrid(us, np.arange(FG), vs, indexing="ij"))
        plans[a, b] = _plan(
            *(dtype, N, F, C, G, (*sizes, len(p), len(cols))),
            *(pixels, _vectors(pixels, len(rows), len(cols), dtype)),
            (
                f * CS - u * DH // SH * RS - v * DW // SW,
                (f * CG * KH + u) * KW + v,
                (f * KH + u) * KW + v,
            ),
            *((FG * KH * KW, KH * KW, CG * KH * KW), (CG, KH * KW, FG * CG * KH * KW)),
            (0, 0),
        )
    return plans


# --- what the layers call -----------------------------------------------------------------

_mine = local()


def workspace(dtype: Any, size: int) -> Array:
    """Return at least `size` numbers to scribble on, this thread's own, at a cache line."""
    kept = _mine.__dict__.setdefault("work", {})
    if dtype not in kept or kept[dtype].size < size:
        raw = np.zeros(size + 64, dtype)
        kept[dtype] = raw[-raw.ctypes.data % 64 // raw.itemsize :]
    return kept[dtype]


def convolve(y, x, w, b, stride, frame, dilation, G, relu=False, pooled=None) -> bool:
    """Fill y with the convolution of x by w, and b added; with relu also that.

    `pooled`, if given, is filled with the largest of every 2 x 2 of y. Arrays are as in
    course/layers/conv2d.py, in row-major order. Returns False, and does nothing, if plain
    loops do as well.
    """
    key = _key(x.shape, w.shape, stride, frame, dilation, G)
    if not _suits(key, y.shape, y.dtype):
        return False
    x, w, b, pool = usable(x), usable(w), usable(b), pooled is not None
    if not pool and _pointwise(key, y.shape, y.dtype):
        from course.engine import matmul  # which imports this module

        matmul.pointwise(y, x, w, b, relu)
        return True
    for part in _parts(y, pooled, x, w, b, key, relu=relu):
        key = _key(x[part].shape, w.shape, stride, frame, dilation, G)
        plan = forward_plan(x.dtype, *key, y.shape[3], int(relu), int(pool))
        _planes(y[part], (pooled if pool else y)[part], x[part], w, b, *plan)
    return True


def pool_relu_dx(dy, dz, y) -> None:
    """Fill dy with the gradient of what a 2 x 2 max-pool makes of y = relu(...)."""
    N, F, HO, WO = y.shape
    key = (N * F, 1, HO, WO, 1, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    _, table = forward_plan(y.dtype, *key, WO)
    flat = dy.reshape(-1), usable(dz).reshape(-1), y.reshape(-1)
    launch(_pool_relu_dx, shares_for(4 * y.size), *flat, *flat[:2], flat[0], table)


def shares_for(products: int) -> int:
    """Return how many threads so many products keep busy."""
    return get_threads() if products >= LITTLE else 1


def convolve_backward(dx, dw, db, dy, x, w, stride, frame, dilation, G, bias=None) -> bool:
    """Fill dx, dw and db with the gradients of the convolution; None for dx or dw skips it.

    Without dw, only the shape of x is looked at. A bias is added to dx. Returns False, and
    does nothing, if plain loops do as well.
    """
    key = _key(x.shape, w.shape, stride, frame, dilation, G)
    if not _suits(key, dy.shape, dy.dtype):
        return False
    dy = usable(dy)
    if dx is not None:
        w = usable(w)
        b = np.zeros(dx.shape[1], dx.dtype) if bias is None else usable(bias)
    if _pointwise(key, dy.shape, dy.dtype):
        from course.engine import matmul

        if dx is not None:
            matmul.pointwise_dx(dx, dy, w, b)
        if dw is not None:
            matmul.pointwise_dw(dw, db, dy, usable(x))
        return True
    if dx is not None:
        for part in _parts(dx, None, dy, w, b, key, turned=True):
            one = _key(dx[part].shape, w.shape, stride, frame, dilation, G)
            _fill_dx(dx[part], dy[part], w, b, one)
    if dw is not None:
        _fill_dw(dw, db, dy, usable(x), key)
    return True


def _parts(target, pooled, source, w, b, key: tuple, **how: bool) -> list[slice]:
    """Return the parts of the batch that Winograd's algorithm leaves to other loops."""
    if key[5] != (3, 3):
        return EVERYTHING
    from course.engine import winograd  # which imports this module

    return winograd.correlate(target, pooled, source, w, b, key, **how)


@lru_cache(maxsize=1024)
def _suits(key: tuple, y_shape: tuple, dtype: Any) -> bool:
    """Say whether the windows are those of y, and there are tiles for them."""
    N, C, *size, F, kernel, stride, frame, dilation, _ = key
    windows = [
        (n + sum(sides) - D * (K - 1) - 1) // S + 1
        for n, K, S, sides, D in zip(size, kernel, stride, frame, dilation, strict=True)
    ]
    flat = [1, y_shape[2] * y_shape[3]]  # an image seen by 1 x 1 taps
    fits = windows in (list(y_shape[2:]), flat)
    depthwise = C == F == 1 and y_shape[0] < N
    wide = stride == (1, 1) and min(windows[1], size[1]) >= tile_shape(dtype).lanes
    return 0 not in y_shape and fits and (not depthwise or wide)


@lru_cache(maxsize=1024)
def _pointwise(key: tuple, y_shape: tuple, dtype: Any) -> bool:
    """Say whether every tap is 1 x 1 and sees all channels: a product of matrices."""
    N, C, _, pixels, _, kernel, stride, frame, _, G = key
    flat = (kernel, stride, frame, G) == ((1, 1), (1, 1), ((0, 0), (0, 0)), 1)
    return flat and y_shape[0] == N and C > 0 and tile_shape(dtype).width <= pixels


def usable(a: Array) -> Array:
    """Return the array as the compiled loops expect it: writeable, and aligned."""
    return a if a.flags.writeable and a.flags.aligned else a.copy()


def _key(x_shape, w_shape, stride, frame, dilation, G):
    """Return what the plans depend on; an image seen by 1 x 1 taps is one long row."""
    (N, C, H, W), (F, _, *kernel) = x_shape, w_shape
    if kernel == [1, 1] and stride == (1, 1) and frame == ((0, 0), (0, 0)):
        H, W = 1, H * W
    if G == C == F > 1:  # depthwise: every plane is an image
        N, C, F, G = N * C, 1, 1, 1
    return N, C, H, W, F, tuple(kernel), stride, frame, dilation, G


def _planes(target, pooled, source, w, b, plan: Plan, table: Array) -> None:
    """Compute the target by the loop that wastes least of its tiles."""
    shares, shape = shares_for(target.size * plan.taps), tile_shape(target.dtype)
    arrays = [a.reshape(-1) for a in (target, pooled, source, w)]
    depthwise = len(target) < plan.N
    along_pixels = plan.fews * plan.vectors * shape.lanes * (plan.taps + 2)
    along_filters = plan.manys * plan.area * (plan.taps + 14)
    if depthwise or (plan.vectors and along_pixels < along_filters):
        work = workspace(target.dtype, shares * plan.room)
        launch(_depthwise if depthwise else _along_pixels, shares, *arrays, b, work, table)
        return
    size = plan.manys * (plan.taps + 2)
    work = workspace(target.dtype, size + shares * (plan.room + BLOCK * shape.width))
    work, packed = work[size:], work[:size]
    launch(_pack, 1, packed, arrays[3], b, b, b, work, table)
    launch(_along_filters, shares, *arrays[:3], packed, b, work, table)


def _fill_dx(dx, dy, w, b, key: tuple) -> None:
    """Fill dx, one kind of pixel after the other; b is added."""
    (N, C, H, W), (F, HO, WO), (SH, SW) = dx.shape, dy.shape[1:], key[6]
    kinds, apart = dx if SH == SW == 1 else np.empty_like(dx), []
    flat, first = kinds.reshape(-1), 0
    if _stamps(key, dy) and kinds is not dx:
        from course.engine import matmul

        rows = kinds.reshape(N, C * SH * SW, HO * WO)
        matmul.pointwise_dx(rows, dy, w.reshape(F, -1), np.repeat(b, SH * SW))
        apart = [(k * HO * WO, SH * SW * HO * WO, WO) for k in range(SH * SW)]
    else:
        for plan, table in dx_plans(dx.dtype, *key).values():
            part = flat[first : first + N * C * plan.area]
            part = part.reshape(N, C, plan.area // plan.columns, plan.columns)
            if plan.taps:
                _planes(part, part, dy, w, b, plan, table)
            else:  # between the windows
                part[...] = b[:, None, None]
            apart.append((first, plan.area, plan.columns))
            first += part.size
    if kinds is not dx:
        table = np.array([N * C, H, W, SH, SW, *np.ravel(apart)])
        shares = shares_for(4 * dx.size)
        launch(_together, shares, dx.reshape(-1), flat, flat, flat, flat, flat, table)


def _stamps(key: tuple, dy: Array) -> bool:
    """Say whether every pixel of x is in one window, so that dx is a product of matrices.

    That is what a transposed convolution does whose stride is as long as its filters.
    """
    N, _, *size, _, kernel, stride, frame, dilation, G = key
    fits = (kernel, frame, dilation, G) == (stride, ((0, 0), (0, 0)), (1, 1), 1)
    whole = [n // S * S for n, S in zip(size, stride, strict=True)] == size
    wide = dy[0, 0].size >= tile_shape(dy.dtype).width
    return fits and whole and wide and len(dy) == N and dy.shape[1] > 0


def _fill_dw(dw, db, dy, x, key: tuple) -> None:
    """Fill dw and db by the loop that wastes least of its tiles."""
    plan, table = forward_plan(x.dtype, *key)
    shares, shape = shares_for(dy.size * dw[0].size), tile_shape(x.dtype)
    taps, spread = plan.taps, plan.vectors * shape.lanes
    flat, arrays = dw.reshape(-1), (x.reshape(-1), dy.reshape(-1))
    if len(x) < plan.N:
        each = plan.room + spread + shape.lanes * (shape.registers // 2)
        work = workspace(x.dtype, shares * each)
        launch(_depthwise_weights, shares, flat, db, *arrays, db, work, table)
    elif spread and plan.fews * spread * (taps + 12) < plan.manys * plan.area * (taps + 8):
        size = plan.shards * plan.T * (taps + 1)
        each = plan.room + shape.rows * (spread + shape.width)
        work = workspace(x.dtype, size + shares * each)
        work, sums = work[size:], work[:size]
        launch(_few_weights, shares, sums, *arrays, db, db, work, table)
        with np.errstate(invalid="ignore", over="ignore"):  # inf - inf, as in any loop
            both = sums.reshape(plan.shards, plan.T, taps + 1).sum(axis=0)
        dw[...], db[...] = both[:, :-1].reshape(dw.shape), both[:, -1]
    else:
        size = plan.shards * plan.manys * (taps + 1)
        work = workspace(x.dtype, size + shares * (plan.room + STRETCH * shape.width))
        work, sums = work[size:], work[:size]
        launch(_weights, shares, sums, *arrays, db, db, work, table)
        launch(_collect, shares, flat, db, sums, db, db, work, table)
