"""A convolutional autoencoder: an image becomes a few numbers, and they an image again.

Layers of autoencoder, for images of 1 x 28 x 28, and how many numbers each learns

    encoder.0    conv 4x4, 16 filters, stride 2, padding 1     16 x 14 x 14        272
    encoder.2    conv 4x4, 32 filters, stride 2, padding 1     32 x 7 x 7        8 224
    encoder.5    linear 1568 -> 32                             32               50 208
    decoder.0    linear 32 -> 1568                             1568             51 744
    decoder.3    stamps 4x4, 16 filters, stride 2, padding 1   16 x 14 x 14      8 208
    decoder.5    stamps 4x4, 1 filter, stride 2, padding 1     1 x 28 x 28         257
    decoder.6    sigmoid                                       1 x 28 x 28
                                                                               118 913

Stamps are transposed convolutions. Their stride divides the kernel: then every pixel is
stamped equally often, and there is no checkerboard in the image that comes out. Train it on
x itself, with a loss such as `course.losses.mean_squared_error`;
`network.children["encoder"]` gives the code alone.

Lecture: lectures/16_beyond_labels.ipynb.
Source: Hinton & Salakhutdinov, Science 313 (2006), for the idea; Zeiler et al., CVPR 2010,
for the transposed convolution; Odena, Dumoulin & Olah, Distill (2016), for the kernel.
"""

from typing import Any

import numpy as np

from course.layers import (
    Conv2d,
    ConvTranspose2d,
    Flatten,
    Linear,
    ReLU,
    Reshape,
    Sigmoid,
)
from course.model import Sequential
from course.shapes import integer
from course.zoo.base import fresh


def autoencoder(
    image: tuple[int, int, int] = (1, 28, 28),
    *,
    code: int = 32,
    rng: np.random.Generator | None = None,
    dtype: Any = np.float32,
) -> Sequential:
    """Return an autoencoder with fresh weights for images (C, H, W) with pixels 0 to 1.

    `code` is how many numbers an image becomes. Raises ValueError if 4 does not divide
    height and width, which are halved twice.
    """
    C, H, W = (integer("image", size, 1) for size in image)
    if H % 4 or W % 4:
        raise ValueError(f"image is {tuple(image)}; 4 must divide its height and width")
    new = fresh(rng, dtype)
    small = 32, H // 4, W // 4
    numbers = 32 * (H // 4) * (W // 4)
    network = Sequential(
        encoder=Sequential(
            *(Conv2d(C, 16, 4, 2, 1, **new), ReLU()),
            *(Conv2d(16, 32, 4, 2, 1, **new), ReLU()),
            *(Flatten(), Linear(numbers, code, **new)),
        ),
        decoder=Sequential(
            *(Linear(code, numbers, **new), ReLU(), Reshape(*small)),
            *(ConvTranspose2d(32, 16, 4, 2, 1, **new), ReLU()),
            *(ConvTranspose2d(16, C, 4, 2, 1, **new), Sigmoid()),
        ),
    )
    network.input_shape = C, H, W
    return network
