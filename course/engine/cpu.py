"""Convolution at the speed of the machine: register tiles that walk over tables.

Every product of a convolution is a weight times a pixel, and three sums run over them
(the equations of course/layers/conv2d.py):

    y[n,f,pixel]   = b[f] + sum over taps   t of w[f,t] * x[n, at[pixel] + tap[t]]
    dx             the same sum, with dy in place of x, w turned around
    dw[f,t]        = sum over n, pixel of dy[n,f,pixel] * x[n, at[pixel] + tap[t]]

where x is one flat array, framed in zeros, at[pixel] is where the window of an output
pixel begins and tap[t] how far tap t = (c,u,v) lies behind it. Kernel size, stride,
padding, dilation and groups are in these two tables and nowhere else: see `Plan`.

Three loops compute this, all of them `acc += number x vector` (course/engine/tile.py):

    along filters   a tile is 6 pixels x 16 filters; the weights are packed so that the
                    filters of a tap lie side by side. Any geometry.
    along pixels    a tile is 6 filters x 16 pixels that lie side by side. For few filters,
                    or few taps, at stride 1; nothing is packed.
    weights         a tile is 6 taps x 16 filters; dy is turned so that the filters of a
                    pixel lie side by side.

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

from course.compiled import compiled
from course.device import Array, get_threads
from course.engine.launch import launch
from course.engine.tile import (
    cols_at,
    each_col,
    each_lane,
    each_row,
    inner,
    lanes_at,
    load,
    outer,
    plus,
    pool,
    positive,
    rows_at,
    shape_of,
    splat,
    store,
    tile_shape,
    times,
    total,
    transpose,
    unpool,
    zeros,
    zeros_row,
)

BLOCK = 48  # pixels whose sums lie side by side before they are written as planes
LITTLE = 1 << 17  # products; below this a second thread costs more than it brings
CHUNK = 256  # taps that are added up in registers, then to the sum of the others
SLACK = 64  # numbers behind a framed image that a last vector may read
STRETCH = 256  # pixels whose dy stays in the first cache while the taps of dw go by


class Plan(NamedTuple):
    """Where a convolution finds what it multiplies: sizes, and tables of places.

    "Source" is what the windows slide over (x; dy for dx), "target" what is summed (y; dx).
    Tables are filled up to whole tiles with their last entry.
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
    top: int  # where the plane begins in it
    left: int
    area: int  # numbers in a target plane
    columns: int  # and in a row of it
    relu: int  # 1 if what is below zero becomes zero
    pool: int  # 1 if the largest of every 2 x 2 goes to a second target
    shards: int  # fixed shares of the batch that dw is summed over
    at: Array  # where the window of each target pixel begins, in a framed plane
    near: Array  # the taps near to past - 1 of its window reach the plane; the others see
    past: Array  # its frame above or below
    run: Array  # the same three for vectors of neighbouring pixels,
    run_to: Array  # and where each is in a target plane
    run_near: Array
    run_past: Array
    tap: Array  # how far each tap lies behind the window's begin, one row of taps after the
    weight: Array  # other; and its weight behind the filter's first
    ordered: Array  # `tap` in the order of w
    line: Array  # which tap each weight of a filter belongs to; one too far if to none
    stretch: int  # in w so many weights of a filter lie side by side,
    leap: int  # and the next ones so far behind
    few: Array  # target channels, in blocks of tile rows that share a group,
    few_start: Array  # and where the weights of each begin
    many: Array  # the same in panels of tile widths
    many_start: Array


# --- the loops ----------------------------------------------------------------------------


@compiled
def _frame(framed, source, n, plan):
    """Copy image n of the source into its frame; the zeros around it stay."""
    for c in range(plan.S):
        for h in range(plan.H):
            there = c * plan.CS + (h + plan.top) * plan.RS + plan.left
            here = ((n * plan.S + c) * plan.H + h) * plan.W
            row, pixels = framed[there : there + plan.W], source[here : here + plan.W]
            for q in range(plan.W):
                row[q] = pixels[q]


@compiled
def _filters_times_pixels(acc, w, filters, weights, framed, pixels, begin, taps):
    """Add the products of filters x neighbouring pixels over the taps."""
    for t in range(taps.size):
        acc = outer(acc, w, filters, weights[t], framed, pixels, begin + taps[t])
    return acc


@compiled
def _pixels_times_filters(acc, framed, windows, begin, taps, packed, sides, panel):
    """Add the products of pixels x neighbouring filters over the taps."""
    _, width, _ = shape_of(acc)
    for t in range(taps.size):
        acc = outer(acc, framed, windows, begin + taps[t], packed, sides, panel + t * width)
    return acc


@compiled
def _taps_times_filters(acc, framed, taps, windows, turned, sides):
    """Add the products of taps x neighbouring filters over the windows."""
    _, width, _ = shape_of(acc)
    for p in range(windows.size):
        acc = outer(acc, framed, taps, windows[p], turned, sides, p * width)
    return acc


@compiled
def _along_pixels(target, pooled, source, w, b, work, plan, share, shares):
    """Sum over taps, tiles of filters x neighbouring pixels; a share has (image, block)."""
    like, image = zeros(target), plan.image
    rows, _, _ = shape_of(like)
    blocks = plan.few.size // rows
    items, bare = plan.N * blocks, not plan.framed
    frame = work[share * ((image + 15) // 16 * 16 + SLACK) :]
    if not bare:
        frame[:image] = 0
    framed, framed_image = (source if bare else frame), -1
    for item in range(items * share // shares, items * (share + 1) // shares):
        n, k = divmod(item, blocks)
        if n != framed_image and not bare:
            _frame(frame, source, n, plan)
        framed_image = n
        filters = rows_at(like, plan.few, k * rows)
        weights = rows_at(like, plan.few_start, k * rows)
        planes = times(filters, plan.area, n * plan.T * plan.area)
        group = plan.few[k * rows] // (plan.T // plan.G)
        begin = group * (plan.S // plan.G) * plan.CS + n * image * bare
        for v in range(0, plan.run.size, 2):
            pixels, places = cols_at(like, plan.run, v), cols_at(like, plan.run_to, v)
            near = min(plan.run_near[v], plan.run_near[v + 1])
            past = max(plan.run_past[v], plan.run_past[v + 1])
            acc = splat(like, b, filters)
            for first in range(near, past, CHUNK):
                if first > near:
                    store(acc, target, planes, places)
                    acc = like
                last = min(first + CHUNK, past)
                taps, these = plan.tap[first:last], plan.weight[first:last]
                acc = _filters_times_pixels(
                    acc, w, weights, these, framed, pixels, begin, taps
                )
                if first > near:
                    acc = plus(acc, target, planes, places)
            if plan.relu:
                acc = positive(acc)
            store(acc, target, planes, places)
        if plan.pool:
            _pool(pooled, target, plan.few[k * rows : (k + 1) * rows], n, plan)


@compiled
def _pack(packed, w, b, _, __, work, plan, share, shares):
    """Put the biases, and the weights of each tap, side by side; a share has panels."""
    like = zeros(packed)
    _, width, lanes = shape_of(like)
    panels, lines = plan.many.size // width, plan.tap.size + 2
    for k in range(panels * share // shares, panels * (share + 1) // shares):
        panel, start = k * lines * width, plan.many_start[k * width : (k + 1) * width]
        for l in range(width):
            packed[panel + l] = b[plan.many[k * width + l]]
        for half in range(0, width, lanes):
            there = panel + width + half
            filters = lanes_at(like, start, half)
            t, past = 0, plan.stretch
            for s in range(plan.line.size // plan.stretch):
                while t < past:
                    here = s * (plan.leap - plan.stretch) + t
                    if t + lanes <= past:
                        line = times(lanes_at(like, plan.line, t), width, there)
                        transpose(w, times(filters, 1, here), packed, line)
                        t += lanes
                    else:
                        for l in range(lanes):
                            packed[there + plan.line[t] * width + l] = w[
                                start[half + l] + here
                            ]
                        t += 1
                past += plan.stretch


@compiled
def _along_filters(target, pooled, source, packed, _, work, plan, share, shares):
    """Sum over taps, tiles of pixels x neighbouring filters; a share has (image, panel)."""
    like, image = zeros(target), plan.image
    rows, width, _ = shape_of(like)
    panels, lines = plan.many.size // width, plan.tap.size + 2
    items, bare = plan.N * panels, not plan.framed
    mine = work[share * ((image + 15) // 16 * 16 + SLACK + BLOCK * width) :]
    sums, frame = mine[: BLOCK * width], mine[BLOCK * width :]
    if not bare:
        frame[:image] = 0
    framed, framed_image = (source if bare else frame), -1
    sides, stack = each_col(like), times(each_row(like), width, 0)
    for item in range(items * share // shares, items * (share + 1) // shares):
        n, k = divmod(item, panels)
        if n != framed_image and not bare:
            _frame(frame, source, n, plan)
        framed_image = n
        many = plan.many[k * width : (k + 1) * width]
        group = many[0] // (plan.T // plan.G)
        begin = group * (plan.S // plan.G) * plan.CS + n * image * bare
        panel = k * lines * width
        for block in range(0, plan.area, BLOCK):
            count = min(BLOCK, plan.area - block)
            for first in range(0, plan.tap.size, CHUNK):
                for p in range(0, count, rows):
                    this, last = block + p, block + p + rows - 1
                    near = max(first, min(plan.near[this], plan.near[last]))
                    past = min(first + CHUNK, max(plan.past[this], plan.past[last]))
                    windows, here = rows_at(like, plan.at, this), times(stack, 1, p * width)
                    if first == 0:
                        acc = load(like, packed, times(windows, 0, panel), sides)
                    else:
                        acc = like
                    line, taps = panel + (near + 1) * width, plan.tap[near:past]
                    acc = _pixels_times_filters(
                        acc, framed, windows, begin, taps, packed, sides, line
                    )
                    if first > 0:
                        acc = plus(acc, sums, here, sides)
                    store(acc, sums, here, sides)
            _unpack(target, n, block, count, sums, many, plan)
        if plan.pool:
            _pool(pooled, target, many, n, plan)


@compiled
def _pool(pooled, target, channels, n, plan):
    """Keep the largest number of every 2 x 2; NaN is larger than any."""
    W, lanes = plan.columns, shape_of(zeros(target))[2]
    rows, half = plan.area // W // 2, W // 2
    for c in range(channels[0], channels[channels.size - 1] + 1):
        for i in range(rows):
            y = (n * plan.T + c) * plan.area + 2 * i * W
            z, j = ((n * plan.T + c) * rows + i) * half, 0
            while half >= lanes and j < half:
                j = min(j, half - lanes)
                pool(pooled, z + j, target, y + 2 * j, W)
                j += lanes
            while j < half:
                a, b, d, e = (
                    *(target[y + 2 * j], target[y + 2 * j + 1]),
                    *(target[y + W + 2 * j], target[y + W + 2 * j + 1]),
                )
                above = a if (a >= b) | (a != a) else b
                below = d if (d >= e) | (d != d) else e
                pooled[z + j] = above if (above >= below) | (above != above) else below
                j += 1


@compiled
def _pool_relu_dx(dy, dz, y, _, __, work, plan, share, shares):
    """Send dz to the first largest of every 2 x 2 of y, if above 0; a share has planes."""
    W, lanes, zero = plan.columns, shape_of(zeros(dy))[2], dy.dtype.type(0)
    rows, half = plan.area // W // 2, W // 2
    end, even = plan.N * (share + 1) // shares * plan.area, plan.area == 4 * rows * half
    for plane in range(plan.N * share // shares, plan.N * (share + 1) // shares):
        if not even:
            dy[plane * plan.area : (plane + 1) * plan.area] = 0
        for i in range(rows):
            here, k, j = plane * plan.area + 2 * i * W, (plane * rows + i) * half, 0
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


@compiled
def _unpack(target, n, block, count, sums, many, plan):
    """Write a block of sums[pixel][filter] as planes of the target."""
    like, zero = zeros(target), target.dtype.type(0)
    numbers, (_, width, lanes) = each_lane(like), shape_of(like)
    if plan.relu:
        for k in range(count * width):
            sums[k] = zero if sums[k] <= zero else sums[k]
    for half in range(0, width, lanes):
        planes = times(
            lanes_at(like, many, half), plan.area, n * plan.T * plan.area + block
        )
        whole = count // lanes * lanes
        for pixel in range(0, whole, lanes):
            here = times(numbers, width, pixel * width + half)
            transpose(sums, here, target, times(planes, 1, pixel))
        for l in range(lanes):
            plane = (n * plan.T + many[half + l]) * plan.area + block
            for pixel in range(whole, count):
                target[plane + pixel] = sums[pixel * width + half + l]


@compiled
def _turn(turned, dy, n, block, count, many, plan):
    """Write a stretch of the planes of dy as turned[pixel][filter]."""
    like = zeros(dy)
    numbers, (_, width, lanes) = each_lane(like), shape_of(like)
    for half in range(0, width, lanes):
        planes = times(
            lanes_at(like, many, half), plan.area, n * plan.T * plan.area + block
        )
        whole = count // lanes * lanes
        for pixel in range(0, whole, lanes):
            there = times(numbers, width, pixel * width + half)
            transpose(dy, times(planes, 1, pixel), turned, there)
        for l in range(lanes):
            plane = (n * plan.T + many[half + l]) * plan.area + block
            for pixel in range(whole, count):
                turned[pixel * width + half + l] = dy[plane + pixel]


@compiled
def _add_lines(sums, start, lines, acc, count):
    """Add the first rows of the tile to so many lines of sums."""
    _, width, _ = shape_of(acc)
    store(acc, lines, times(each_row(acc), width, 0), each_col(acc))
    for k in range(count * width):
        sums[start + k] += lines[k]


@compiled
def _weights(sums, x, dy, _, __, work, plan, share, shares):
    """Sum over images and pixels, tiles of taps x neighbouring filters.

    A share has (shard, panel): sums[shard][panel][1 + tap][filter]; line 0 is for db.
    """
    like, image = zeros(sums), plan.image
    rows, width, _ = shape_of(like)
    panels, taps, bare = plan.many.size // width, plan.tap.size, not plan.framed
    mine = work[share * ((image + 15) // 16 * 16 + SLACK + STRETCH * width) :]
    turned, frame = mine[: STRETCH * width], mine[STRETCH * width :]
    if not bare:
        frame[:image] = 0
    framed, sides, stack = (
        (x if bare else frame),
        each_col(like),
        times(each_row(like), width, 0),
    )
    items = plan.shards * panels
    begin, end = items * share // shares, items * (share + 1) // shares
    sums[begin * (taps + 1) * width : end * (taps + 1) * width] = 0
    for shard in range(begin // panels, (end + panels - 1) // panels):
        k0, k1 = max(begin - shard * panels, 0), min(end - shard * panels, panels)
        for n in range(plan.N * shard // plan.shards, plan.N * (shard + 1) // plan.shards):
            if not bare:
                _frame(frame, x, n, plan)
            for k in range(k0, k1):
                many = plan.many[k * width : (k + 1) * width]
                group = many[0] // (plan.T // plan.G)
                channels = group * (plan.S // plan.G) * plan.CS + n * image * bare
                line = (shard * panels + k) * (taps + 1) * width
                for block in range(0, plan.area, STRETCH):
                    count = min(STRETCH, plan.area - block)
                    _turn(turned, dy, n, block, count, many, plan)
                    db = sums[line : line + width]
                    for p in range(count):
                        for l in range(width):
                            db[l] += turned[p * width + l]
                    for t in range(0, taps, rows):
                        begins = times(rows_at(like, plan.ordered, t), 1, channels)
                        windows = plan.at[block : block + count]
                        acc = _taps_times_filters(
                            like, framed, begins, windows, turned, sides
                        )
                        lines = times(stack, 1, line + (t + 1) * width)
                        if t + rows <= taps:
                            store(plus(acc, sums, lines, sides), sums, lines, sides)
                        else:
                            _add_lines(sums, line + (t + 1) * width, turned, acc, taps - t)


@compiled
def _collect(dw, db, sums, _, __, work, plan, share, shares):
    """Add up the shards, in order, and put the weights where they belong."""
    like = zeros(dw)
    numbers, (_, width, lanes) = each_lane(like), shape_of(like)
    panels, lines = plan.many.size // width, plan.tap.size + 1
    size = panels * lines * width
    for k in range(panels * share // shares, panels * (share + 1) // shares):
        panel = sums[k * lines * width : (k + 1) * lines * width]
        for shard in range(1, plan.shards):
            more = sums[shard * size + k * lines * width :]
            for i in range(panel.size):
                panel[i] += more[i]
        start = plan.many_start[k * width : (k + 1) * width]
        for l in range(width):
            db[plan.many[k * width + l]] = panel[l]
        for half in range(0, width, lanes):
            filters, t = lanes_at(like, start, half), 0
            while t < lines - 1:
                line = (t + 1) * width + half
                if t + lanes <= lines - 1:
                    transpose(panel, times(numbers, width, line), dw, times(filters, 1, t))
                    t += lanes
                else:
                    for l in range(lanes):
                        dw[start[half + l] + t] = panel[line + l]
                    t += 1


@compiled
def _sum(numbers):
    """Return the sum of the numbers."""
    found = numbers.dtype.type(0)
    for i in range(numbers.size):
        found += numbers[i]
    return found


@compiled
def _filters_times_taps(acc, spread, places, framed, begins, runs):
    """Add the products of filters x taps over vectors of pixels."""
    lanes = shape_of(acc)[2]
    for v in range(runs.size):
        acc = inner(acc, spread, places, v * lanes, framed, begins, runs[v])
    return acc


@compiled
def _spread(spread, dy, plane, plan, lanes):
    """Write a plane of dy as the vectors of the plan, each pixel once, else zeros."""
    for v in range(plan.run.size):
        begin = plan.run_to[v]
        again = max(plan.run_to[v - 1] + lanes - begin, 0) if v > 0 else 0
        for l in range(lanes):
            number = dy[plane + begin + l]
            spread[v * lanes + l] = number if l >= again else dy.dtype.type(0)


@compiled
def _few_weights(sums, x, dy, _, __, work, plan, share, shares):
    """Sum over images and pixels, tiles of few filters x taps; the lanes are pixels.

    A share has (shard, block): sums[shard][filter][tap, and one more for db].
    """
    like, image, taps = zeros(sums), plan.image, plan.tap.size
    rows, width, lanes = shape_of(like)
    cols, long, blocks = width // lanes, plan.run.size * lanes, plan.few.size // rows
    mine = work[share * ((image + 15) // 16 * 16 + SLACK + rows * (long + width)) :]
    spread, small, frame = (
        mine[: rows * long],
        mine[rows * long :],
        mine[rows * (long + width) :],
    )
    bare = not plan.framed
    if not bare:
        frame[:image] = 0
    framed, items = (x if bare else frame), plan.shards * blocks
    for item in range(items * share // shares, items * (share + 1) // shares):
        shard, k = divmod(item, blocks)
        filters = plan.few[k * rows : (k + 1) * rows]
        channels = filters[0] // (plan.T // plan.G) * (plan.S // plan.G) * plan.CS
        part = sums[shard * plan.T * (taps + 1) :]
        for p in range(rows):
            part[filters[p] * (taps + 1) : (filters[p] + 1) * (taps + 1)] = 0
        places = times(each_row(like), long, 0)
        for n in range(plan.N * shard // plan.shards, plan.N * (shard + 1) // plan.shards):
            if not bare:
                _frame(frame, x, n, plan)
            for p in range(rows):
                plane = (n * plan.T + filters[p]) * plan.area
                _spread(spread[p * long :], dy, plane, plan, lanes)
                if p == 0 or filters[p] > filters[p - 1]:
                    part[filters[p] * (taps + 1) + taps] += _sum(
                        dy[plane : plane + plan.area]
                    )
            for t in range(0, taps, cols):
                begins = times(
                    cols_at(like, plan.ordered, t), 1, channels + n * image * bare
                )
                acc = _filters_times_taps(like, spread, places, framed, begins, plan.run)
                total(acc, small, times(each_row(like), cols, 0), 1)
                for p in range(rows):
                    if p == 0 or filters[p] > filters[p - 1]:
                        for q in range(min(cols, taps - t)):
                            part[filters[p] * (taps + 1) + t + q] += small[p * cols + q]


@compiled
def _depthwise(target, pooled, source, w, b, work, plan, share, shares):
    """Sum over taps where every channel has its own filter, 8 vectors of pixels at a time.

    A share has planes; to the plan each plane is an image.
    """
    like, image, taps = zeros_row(target), plan.image, plan.tap.size
    cols = shape_of(like)[1] // shape_of(like)[2]
    frame = work[share * ((image + 15) // 16 * 16 + SLACK) :]
    if plan.framed:
        frame[:image] = 0
    framed = frame if plan.framed else source
    for n in range(plan.N * share // shares, plan.N * (share + 1) // shares):
        if plan.framed:
            _frame(frame, source, n, plan)
        channel = rows_at(like, plan.few, 0)
        channel = times(channel, 0, n % b.size)
        weights, plane = times(channel, taps, 0), times(channel, 0, n * plan.area)
        begin = 0 if plan.framed else n * image
        for v in range(0, plan.run.size, cols):
            pixels = cols_at(like, plan.run, v)
            acc = splat(like, b, channel)
            acc = _filters_times_pixels(
                acc, w, weights, plan.weight, framed, pixels, begin, plan.tap
            )
            if plan.relu:
                acc = positive(acc)
            store(acc, target, plane, cols_at(like, plan.run_to, v))
        if plan.pool:
            _pool(pooled, target, plan.few[:1], n, plan)


@compiled
def _depthwise_weights(dw, db, x, dy, _, work, plan, share, shares):
    """Sum dy times x over images and pixels, 8 taps at a time; a share has channels."""
    like, image, taps, C = zeros_row(dw), plan.image, plan.tap.size, db.size
    _, width, lanes = shape_of(like)
    cols, long = width // lanes, plan.run.size * lanes
    mine = work[share * ((image + 15) // 16 * 16 + SLACK + long + width) :]
    spread, small, frame = mine[:long], mine[long:], mine[long + width :]
    if plan.framed:
        frame[:image] = 0
    framed, start = (frame if plan.framed else x), times(rows_at(like, plan.few, 0), 0, 0)
    for c in range(C * share // shares, C * (share + 1) // shares):
        dw[c * taps : (c + 1) * taps] = 0
        db[c] = 0
        for n in range(c, plan.N, C):
            if plan.framed:
                _frame(frame, x, n, plan)
            _spread(spread, dy, n * plan.area, plan, lanes)
            db[c] += _sum(spread[:long])
            for t in range(0, taps, cols):
                begins = times(
                    cols_at(like, plan.ordered, t), 1, 0 if plan.framed else n * image
                )
                acc = _filters_times_taps(like, spread, start, framed, begins, plan.run)
                total(acc, small, start, 1)
                for q in range(min(cols, taps - t)):
                    dw[c * taps + t + q] += small[q]


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


def _plan(dtype, N, S, T, G, sizes, pixels, vectors, taps, weights, steps) -> Plan:
    """Return the plan; the tables come in order, the taps row by row."""
    shape = tile_shape(dtype)
    few, few_start = _owners(G, shape.rows, *steps)
    many, many_start = _owners(G, shape.width, *steps)
    panels = len(many) // shape.width
    at, near, past = (np.asarray(k, np.int64) for k in pixels)
    count, stretch, leap = weights
    tap, weight, rank = (np.asarray(k, np.int64) for k in taps)
    line = np.full(count, len(tap))
    line[rank] = np.arange(len(tap))
    return Plan(
        *(N, S, T, G, *sizes, 0, 0, 1 if panels >= 4 else min(N, 8)),
        *(whole(at, BLOCK), whole(near, BLOCK), whole(past, BLOCK)),
        *(whole(table, shape.registers // 2) for table in vectors),
        *(tap, weight, whole(tap[np.argsort(rank)], BLOCK)),
        *(line, stretch, leap),
        *(few, few_start, many, many_start),
    )


def _layout(S: int, H: int, W: int, HP: int, WP: int, top: int, left: int):
    """Return the steps from row to row and channel to channel, and sizes for the plan.

    In a frame the same row of all channels comes before the next row: then what a window
    sees lies close together, in few pages of memory.
    """
    framed = (H, W) != (HP, WP)
    RS, CS = (S * WP, WP) if framed else (W, H * W)
    return RS, CS, (H, W, RS, CS, int(framed), S * HP * WP, top, left)


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
def forward_plan(dtype, N, C, H, W, F, kernel, stride, frame, dilation, G) -> Plan:
    """Return the plan of y, and of dw."""
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
        *(dtype, N, C, F, G, (*sizes, HO * WO, WO)),
        *(
            pixels,
            _vectors(pixels, HO, WO, dtype) if SW == 1 else _vectors(pixels, 0, 0, dtype),
        ),
        (c * CS + u * DH * RS + v * DW, line, line),
        *((CG * KH * KW, CG * KH * KW, 0), (FG, CG * KH * KW, FG * CG * KH * KW)),
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
    plans = {}
    for a, b in product(range(min(SH, H)), range(min(SW, W))):
        rows, cols = np.arange(a, H, SH), np.arange(b, W, SW)
        us = np.array([u for u in range(KH) if (u * DH - top - a) % SH == 0], int)
        vs = np.array([v for v in range(KW) if (v * DW - left - b) % SW == 0], int)
        p, q = (k.ravel() for k in np.meshgrid(rows, cols, indexing="ij"))
        i, j = (p + top) // SH, (q + left) // SW  # the window that tap 0 meets
        down = us * DH // SH
        near = np.searchsorted(down, i - HO, "right") * FG * len(vs)
        past = np.searchsorted(down, i, "right") * FG * len(vs)
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


def _room(plan: Plan) -> int:
    """Return the numbers in a framed image of the source, and some to overshoot into."""
    return -(-plan.image // 16) * 16 + SLACK


def convolve(y, x, w, b, stride, frame, dilation, G, relu=False, pooled=None) -> bool:
    """Fill y with the convolution of x by w, and b added; with relu also that.

    `pooled`, if given, is filled with the largest of every 2 x 2 of y. Arrays are as in
    course/layers/conv2d.py, in row-major order. Returns False, and does nothing, if plain
    loops do as well.
    """
    key = _key(x.shape, w.shape, stride, frame, dilation, G)
    if not _suits(key, y):
        return False
    x, w, b = map(usable, (x, w, b))
    plan = forward_plan(x.dtype, *key)
    plan = plan._replace(columns=y.shape[3], relu=int(relu), pool=int(pooled is not None))
    _planes(y, y if pooled is None else pooled, x, w, b, plan, len(x) < plan.N)
    return True


def pool_relu_dx(dy, dz, y) -> None:
    """Fill dy with the gradient of what a 2 x 2 max-pool makes of y = relu(...)."""
    N, F, HO, WO = y.shape
    key = (N * F, 1, HO, WO, 1, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    plan = forward_plan(y.dtype, *key)
    flat = dy.reshape(-1), usable(dz).reshape(-1), y.reshape(-1)
    plan = plan._replace(columns=WO)
    launch(_pool_relu_dx, _shares(4 * y.size), *flat, *flat[:2], flat[0], plan)


def _shares(products: int) -> int:
    """Return how many threads so many products keep busy."""
    return get_threads() if products >= LITTLE else 1


def convolve_backward(dx, dw, db, dy, x, w, stride, frame, dilation, G) -> bool:
    """Fill dx, dw and db with the gradients of the convolution; None for dx or dw skips it.

    Without dw, only the shape of x is looked at. Returns False, and does nothing, if plain
    loops do as well.
    """
    key = _key(x.shape, w.shape, stride, frame, dilation, G)
    if not _suits(key, dy):
        return False
    dy = usable(dy)
    if dx is not None:
        _fill_dx(dx, dy, usable(w), key)
    if dw is not None:
        _fill_dw(dw, db, dy, usable(x), key)
    return True


def _suits(key: tuple, y: Array) -> bool:
    """Say whether the windows are those of y, and there are tiles for them."""
    N, C, *size, F, kernel, stride, frame, dilation, _ = key
    windows = [
        (n + sum(sides) - D * (K - 1) - 1) // S + 1
        for n, K, S, sides, D in zip(size, kernel, stride, frame, dilation, strict=True)
    ]
    flat = [1, y.shape[2] * y.shape[3]]  # an image seen by 1 x 1 taps
    fits = windows in (list(y.shape[2:]), flat)
    depthwise = C == F == 1 and len(y) < N
    wide = stride == (1, 1) and min(windows[1], size[1]) >= tile_shape(y.dtype).lanes
    return bool(y.size) and fits and (not depthwise or wide)


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


def _planes(target, pooled, source, w, b, plan: Plan, depthwise: bool) -> None:
    """Compute the target by the loop that wastes least of its tiles."""
    shares, shape = _shares(target.size * len(plan.tap)), tile_shape(target.dtype)
    arrays = [a.reshape(-1) for a in (target, pooled, source, w)]
    taps, vectors = len(plan.tap), len(plan.run)
    along_pixels = len(plan.few) * vectors * shape.lanes * (taps + 2)
    along_filters = len(plan.many) * plan.area * (taps + 14)
    if depthwise or (vectors and along_pixels < along_filters):
        work = workspace(target.dtype, shares * _room(plan))
        launch(_depthwise if depthwise else _along_pixels, shares, *arrays, b, work, plan)
        return
    size = len(plan.many) * (taps + 2)
    work = workspace(target.dtype, size + shares * (_room(plan) + BLOCK * shape.width))
    work, packed = work[size:], work[:size]
    launch(_pack, 1, packed, arrays[3], b, b, b, work, plan)
    launch(_along_filters, shares, *arrays[:3], packed, b, work, plan)


def _fill_dx(dx, dy, w, key: tuple) -> None:
    """Fill dx, one kind of pixel after the other."""
    SH, SW = key[6]
    zero = np.zeros(dx.shape[1], dx.dtype)
    for (a, b), plan in dx_plans(dx.dtype, *key).items():
        part = dx[:, :, a::SH, b::SW]
        if not len(plan.tap):  # between the windows
            part[...] = 0
            continue
        whole = dx if SH == SW == 1 else np.empty(part.shape, dx.dtype)
        _planes(whole, whole, dy, w, zero, plan, len(dx) < plan.N)
        if whole is not dx:
            part[...] = whole


def _fill_dw(dw, db, dy, x, key: tuple) -> None:
    """Fill dw and db by the loop that wastes least of its tiles."""
    plan = forward_plan(x.dtype, *key)
    shares, shape = _shares(dy.size * dw[0].size), tile_shape(x.dtype)
    taps, panels, spread = len(plan.tap), len(plan.many), len(plan.run) * shape.lanes
    arrays = x.reshape(-1), dy.reshape(-1)
    if len(x) < plan.N:
        each = _room(plan) + spread + shape.lanes * (shape.registers // 2)
        work = workspace(x.dtype, shares * each)
        launch(_depthwise_weights, shares, dw.reshape(-1), db, *arrays, db, work, plan)
    elif spread and len(plan.few) * spread * (taps + 12) < panels * plan.area * (taps + 8):
        plan = plan._replace(shards=min(plan.N, 8))
        size = plan.shards * plan.T * (taps + 1)
        each = _room(plan) + shape.rows * (spread + shape.width)
        work = workspace(x.dtype, size + shares * each)
        work, sums = work[size:], work[:size]
        launch(_few_weights, shares, sums, *arrays, db, db, work, plan)
        both = sums.reshape(plan.shards, plan.T, taps + 1).sum(axis=0)
        dw[...], db[...] = both[:, :-1].reshape(dw.shape), both[:, -1]
    else:
        size = plan.shards * panels * (taps + 1)
        each = _room(plan) + STRETCH * shape.width
        work = workspace(x.dtype, size + shares * each)
        work, sums = work[size:], work[:size]
        launch(_weights, shares, sums, *arrays, db, db, work, plan)
        launch(_collect, shares, dw.reshape(-1), db, sums, db, db, work, plan)
