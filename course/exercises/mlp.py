"""Exercise 7: a multilayer perceptron by hand, and the activations that learn.

The network has two matrices of weights: x (N, n1), theta1 (n2, n1), b1 (n2,),
theta2 (n3, n2), b2 (n3,), with a sigmoid after each. Right answers follow the slide's sums
one neuron at a time, with no matrix product; wrong answers are what students write.
"""

from collections.abc import Callable, Iterator
from math import exp, expm1

import numpy as np

from course.exercises.picture import Panel, Window
from course.exercises.spec import Mutant, Question, Speed


def wrong(says: str) -> Callable[[Callable], Mutant]:
    """Turn a function into a wrong answer with the sentence that explains it."""
    return lambda function: Mutant(says, function)


# ---------------------------------------------------------------- right answers


def squashed(z: float) -> float:
    """The sigmoid of one number."""
    return 1 / (1 + exp(-z)) if z > 0 else exp(z) / (1 + exp(z))


def layer(a, theta, b):
    """Every neuron: its weighted sum of the layer before, plus its bias."""
    z = np.zeros((len(a), len(theta)))
    for n, i in np.ndindex(z.shape):
        z[n, i] = b[i] + sum(theta[i, j] * a[n, j] for j in range(a.shape[1]))
    return z


def network(x, theta1, b1, theta2, b2):
    """a2 and a3, neuron by neuron."""
    squash = np.vectorize(squashed, otypes=[np.float64])
    a2 = squash(layer(x, theta1, b1))
    return a2, squash(layer(a2, theta2, b2))


def prediction(x, theta1, b1, theta2, b2):
    """a3 alone."""
    return network(x, theta1, b1, theta2, b2)[1]


def gradients(x, y, a2, a3, theta2):
    """The slide's recursion, one sample and one edge at a time, then the mean."""
    N, n1, n2, n3 = len(x), x.shape[1], a2.shape[1], a3.shape[1]
    d1, d2 = np.zeros((n2, n1)), np.zeros((n3, n2))
    e1, e2 = np.zeros(n2), np.zeros(n3)
    for n in range(N):
        delta3 = [float(a3[n, k]) - y[n, k] for k in range(n3)]
        for k in range(n3):
            e2[k] += delta3[k] / N
            for i in range(n2):
                d2[k, i] += delta3[k] * a2[n, i] / N
        for i in range(n2):
            a = float(a2[n, i])
            delta2 = a * (1 - a) * sum(delta3[k] * theta2[k, i] for k in range(n3))
            e1[i] += delta2 / N
            for j in range(n1):
                d1[i, j] += delta2 * x[n, j] / N
    return d1, e1, d2, e2


def penalised(Delta, Theta, n, lam):
    """The slide's two cases, entry by entry."""
    D = np.zeros(Delta.shape)
    for i, j in np.ndindex(D.shape):
        D[i, j] = Delta[i, j] / n + (lam * Theta[i, j] if j != 0 else 0.0)
    return D


def elu_value(z, alpha):
    """Number by number."""
    value = np.vectorize(lambda v: v if v > 0 else alpha * expm1(v), otypes=[np.float64])
    return value(z)


def elu_slope(z, alpha):
    """Number by number."""
    value = np.vectorize(lambda v: 1.0 if v > 0 else alpha * exp(v), otypes=[np.float64])
    return value(z)


def prelu_gradients(dy, z, s):
    """One neuron at a time."""
    dz, ds = np.zeros(z.shape), np.zeros(len(s))
    for n, c in np.ndindex(z.shape):
        below = z[n, c] <= 0
        dz[n, c] = s[c] * dy[n, c] if below else dy[n, c]
        ds[c] += z[n, c] * dy[n, c] if below else 0.0
    return dz, ds


def maxout_value(x, w, b):
    """The largest piece of each output, and which one it is."""
    y = np.zeros((len(x), w.shape[1]))
    winner = np.zeros(y.shape, np.int64)
    for n, o in np.ndindex(y.shape):
        pieces = [b[p, o] + sum(w[p, o] * x[n]) for p in range(len(w))]
        winner[n, o] = pieces.index(max(pieces))
        y[n, o] = pieces[winner[n, o]]
    return y, winner


def maxout_gradients(dy, x, w, winner):
    """The winner takes the gradient of its output."""
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(w.shape[:2])
    for n, o in np.ndindex(dy.shape):
        p = winner[n, o]
        db[p, o] += dy[n, o]
        for i in range(x.shape[1]):
            dx[n, i] += dy[n, o] * w[p, o, i]
            dw[p, o, i] += dy[n, o] * x[n, i]
    return dx, dw, db


def steep():
    """A slope above 1 turns the larger of s z and z into the wrong one."""
    return np.array([-1.0, 2.0]), 3.0


# ----------------------------------------------------------------------- cases


def stored(a: np.ndarray, k: int) -> np.ndarray:
    """Return the array as it is, as float32, with strides, or in column order."""
    if k % 4 == 1:
        return a.astype(np.float32)
    if k % 4 == 2:
        return np.repeat(a, 2, axis=-1)[..., ::2]
    return np.asfortranarray(a) if k % 4 == 3 else a


def nets(rng: np.random.Generator) -> Iterator[tuple]:
    """Inputs and weights of all small sizes, square and not, batch 1 and more."""
    yield (
        np.array([[1.0, 0.0]]),
        np.array([[2.0, 1.0], [-1.0, 3.0]]),
        np.array([-2.0, 1.0]),
        np.array([[4.0, -2.0]]),
        np.array([-1.0]),
    )
    k = 0
    for n1 in (1, 2, 3):
        for n2 in (1, 2, 3):
            for n3 in (1, 2, 3):
                for N in (1, 2, 5):
                    k += 1
                    shapes = (N, n1), (n2, n1), (n2,), (n3, n2), (n3,)
                    yield tuple(stored(rng.normal(0, 2, shape), k) for shape in shapes)


def row_major(rng: np.random.Generator) -> Iterator[tuple]:
    """The same nets in one layout: a compiled answer is compiled once for each."""
    for arrays in nets(rng):
        yield tuple(np.ascontiguousarray(a) for a in arrays)


def passes(rng: np.random.Generator) -> Iterator[tuple]:
    """What a backward pass is given: x, y, a2, a3, theta2."""
    yield (
        np.array([[1.0, 2.0]]),
        np.array([[1.0]]),
        np.array([[0.5, 0.5]]),
        np.array([[0.5]]),
        np.array([[4.0, -8.0]]),
    )
    for k, (x, theta1, b1, theta2, b2) in enumerate(nets(rng)):
        a2, a3 = network(x, theta1, b1, theta2, b2)
        y = rng.integers(0, 2, a3.shape).astype(np.float64)
        kept = (x, y, a2, a3, theta2)
        yield tuple(stored(a, 1) for a in kept) if k % 4 == 1 else kept


def sums(rng: np.random.Generator) -> Iterator[tuple]:
    """Delta and Theta of all small sizes, n and lambda."""
    yield np.array([[2.0, 4.0], [6.0, 8.0]]), np.array([[10.0, 20.0], [30.0, 40.0]]), 2, 0.1
    k = 0
    for rows in (1, 2, 3, 4):
        for columns in (1, 2, 3, 4):
            for n in (2, 3, 50):
                k += 1
                Delta, Theta = (stored(rng.normal(0, 3, (rows, columns)), k) for _ in "12")
                yield Delta, Theta, n, float(rng.choice([0.01, 0.5, 2.0]))


def pre_activations(rng: np.random.Generator) -> Iterator[tuple]:
    """Numbers on both sides of zero, never zero itself, and alpha."""
    yield np.array([1.0, -np.log(2.0), 2.0]), 4.0
    for k in range(48):
        shape = ((5,), (1,), (3, 4), (2, 1, 3))[k % 4]
        z = rng.uniform(0.05, 4, shape) * rng.choice([-1, 1], shape)
        yield stored(z, k // 4), float(rng.choice([0.1, 0.5, 1.5, 3.0]))


def slopes(rng: np.random.Generator) -> Iterator[tuple]:
    """Upstream gradients, pre-activations and slopes."""
    z = np.array([[-2.0, 5.0], [-1.0, -3.0]])
    yield np.array([[1.0, 2.0], [3.0, 4.0]]), z, np.array([2.0, 3.0])
    k = 0
    for N in (1, 2, 3, 6):
        for C in (1, 2, 3, 5):
            for _ in range(3):
                k += 1
                z = rng.uniform(0.1, 3, (N, C)) * rng.choice([-1, 1], (N, C))
                dy, s = rng.normal(0, 2, (N, C)), rng.uniform(-0.5, 1.5, C)
                yield stored(dy, k), stored(z, k), stored(s, k)


def pieces(rng: np.random.Generator) -> Iterator[tuple]:
    """Inputs, weights and biases of maxout layers of all small sizes."""
    w = np.array([[[1.0, 1.0]], [[3.0, -1.0]]])
    yield np.array([[1.0, 2.0]]), w, np.array([[0.0], [1.0]])
    yield np.array([[1.0, 2.0]]), w, np.array([[0.0], [2.0]])  # both pieces are 3
    k = 0
    for N in (1, 2, 4):
        for I in (1, 2, 3):
            for O in (1, 2, 3):
                for P in (2, 3):
                    k += 1
                    shapes = (N, I), (P, O, I), (P, O)
                    yield tuple(stored(rng.normal(size=shape), k) for shape in shapes)


def won(rng: np.random.Generator) -> Iterator[tuple]:
    """What a maxout backward pass is given: dy, x, w, winner."""
    for k, (x, w, b) in enumerate(pieces(rng)):
        _, winner = maxout_value(x, w, b)
        dy = rng.normal(0, 2, winner.shape) if k else np.full(winner.shape, 2.0)
        yield dy.astype(x.dtype), x, w, winner


def once(rng: np.random.Generator) -> Iterator[tuple]:
    """A question without arguments."""
    yield ()


# ------------------------------------------------------ wrong answers: forward


def sigmoid(z):
    """1 / (1 + e^-z)."""
    return 1 / (1 + np.exp(-z))


@wrong("Θ is not transposed: rows of x are samples, so z = x @ Θ.T + b.")
def _forward_untransposed(x, theta1, b1, theta2, b2):
    a2 = sigmoid(x @ theta1 + b1)
    return a2, sigmoid(a2 @ theta2 + b2)


@wrong("The biases are missing: z = a @ Θ.T + b, in both layers.")
def _forward_without_bias(x, theta1, b1, theta2, b2):
    a2 = sigmoid(x @ theta1.T)
    return a2, sigmoid(a2 @ theta2.T)


@wrong("b2 is missing: the output layer has biases too, z3 = a2 @ Θ2.T + b2.")
def _forward_without_b2(x, theta1, b1, theta2, b2):
    a2 = sigmoid(x @ theta1.T + b1)
    return a2, sigmoid(a2 @ theta2.T)


@wrong("The bias is added after the sigmoid. It belongs inside: g(a @ Θ.T + b).")
def _forward_bias_outside(x, theta1, b1, theta2, b2):
    a2 = sigmoid(x @ theta1.T) + b1
    return a2, sigmoid(a2 @ theta2.T) + b2


@wrong("The output has no sigmoid: a3 = g(z3), a probability between 0 and 1.")
def _forward_open_end(x, theta1, b1, theta2, b2):
    a2 = sigmoid(x @ theta1.T + b1)
    return a2, a2 @ theta2.T + b2


@wrong("The hidden layer has no sigmoid: then two layers are only one. a2 = g(z2).")
def _forward_collapsed(x, theta1, b1, theta2, b2):
    a2 = x @ theta1.T + b1
    return a2, sigmoid(a2 @ theta2.T + b2)


@wrong("The sigmoid has the wrong sign: it is 1 / (1 + e^(-z)), with a minus.")
def _forward_mirrored(x, theta1, b1, theta2, b2):
    a2 = sigmoid(-(x @ theta1.T + b1))
    return a2, sigmoid(-(a2 @ theta2.T + b2))


@wrong("The second layer gets z2. Feed it the activation: z3 = a2 @ Θ2.T + b2.")
def _forward_fed_z(x, theta1, b1, theta2, b2):
    z2 = x @ theta1.T + b1
    return sigmoid(z2), sigmoid(z2 @ theta2.T + b2)


@wrong("You return z2 and z3. Return what comes after the sigmoid: a2 and a3.")
def _forward_before_sigmoid(x, theta1, b1, theta2, b2):
    z2 = x @ theta1.T + b1
    return z2, sigmoid(z2) @ theta2.T + b2


# ----------------------------------------------------- wrong answers: backward


def back(x, y, a2, a3, theta2, sign=1, last=None, prime=None, through=None, mean=True):
    """The right pass, with one of its parts replaced."""
    delta3 = sign * (a3 - y) if last is None else last
    weighted = delta3 @ theta2 if through is None else through(delta3)
    delta2 = weighted * (a2 * (1 - a2) if prime is None else prime)
    N = len(x) if mean else 1
    return delta2.T @ x / N, delta2.sum(0) / N, delta3.T @ a2 / N, delta3.sum(0) / N


@wrong("The sign: y - a goes uphill. For the loss with its minus, δ3 = a3 - y.")
def _backward_uphill(x, y, a2, a3, theta2):
    return back(x, y, a2, a3, theta2, sign=-1)


@wrong("Θ2 has the wrong side: with rows as samples, δ3 goes back as δ3 @ Θ2.")
def _backward_untransposed(x, y, a2, a3, theta2):
    return back(x, y, a2, a3, theta2, through=lambda delta3: delta3 @ theta2.T)


@wrong("You take g'(a) for g'(z): a2 is already g(z2), so g'(z2) = a2 * (1 - a2).")
def _backward_prime_of_a(x, y, a2, a3, theta2):
    return back(x, y, a2, a3, theta2, prime=sigmoid(a2) * (1 - sigmoid(a2)))


@wrong("g' is missing: δ2 = (δ3 @ Θ2) * a2 * (1 - a2).")
def _backward_no_prime(x, y, a2, a3, theta2):
    return back(x, y, a2, a3, theta2, prime=1.0)


@wrong("Your δ3 has an extra a3 * (1 - a3). With cross-entropy it cancels: δ3 = a3 - y.")
def _backward_squared(x, y, a2, a3, theta2):
    return back(x, y, a2, a3, theta2, last=(a3 - y) * a3 * (1 - a3))


@wrong("You return sums over the batch. The loss is a mean: divide by N.")
def _backward_sums(x, y, a2, a3, theta2):
    return back(x, y, a2, a3, theta2, mean=False)


@wrong("g' is taken of the wrong layer: δ2 needs a2 * (1 - a2), not x * (1 - x).")
def _backward_prime_of_x(x, y, a2, a3, theta2):
    return back(x, y, a2, a3, theta2, prime=x * (1 - x))


@wrong("The weight gradients are transposed: dΘ has the shape of Θ, δ.T @ a.")
def _backward_transposed(x, y, a2, a3, theta2):
    d1, e1, d2, e2 = back(x, y, a2, a3, theta2)
    return d1.T, e1, d2.T, e2


@wrong("You divide by N twice: once is a mean, in δ3 or at the end, not in both.")
def _backward_mean_twice(x, y, a2, a3, theta2):
    return back(x, y, a2, a3, theta2, last=(a3 - y) / len(x))


@wrong("You divide by N times n3. The mean is over the N samples only.")
def _backward_mean_of_all(x, y, a2, a3, theta2):
    return back(x, y, a2, a3, theta2, last=(a3 - y) / a3.shape[1])


@wrong("db1 and db2 are sums. They are means over the samples too: divide by N.")
def _backward_bias_sums(x, y, a2, a3, theta2):
    d1, e1, d2, e2 = back(x, y, a2, a3, theta2)
    return d1, e1 * len(x), d2, e2 * len(x)


@wrong("1 - a2² is the derivative of tanh. For the sigmoid, g' is a2 * (1 - a2).")
def _backward_tanh(x, y, a2, a3, theta2):
    return back(x, y, a2, a3, theta2, prime=1 - a2**2)


# --------------------------------------------------- wrong answers: the penalty


@wrong("The bias is regularised too. Column j = 0 gets no penalty: it is Δ/n alone.")
def _penalty_everywhere(Delta, Theta, n, lam):
    return Delta / n + lam * Theta


@wrong("You spare row i = 0. The biases are column j = 0: D[:, 0].")
def _penalty_spares_row(Delta, Theta, n, lam):
    D = Delta / n + lam * Theta
    D[0] = Delta[0] / n
    return D


@wrong("The penalty is divided by n as well. Only Δ is: D = Δ/n + λΘ.")
def _penalty_divided(Delta, Theta, n, lam):
    D = (Delta + lam * Theta) / n
    D[:, 0] = Delta[:, 0] / n
    return D


@wrong("The penalty is twice too large: the loss has λ/2 |Θ|², its gradient is λΘ.")
def _penalty_doubled(Delta, Theta, n, lam):
    D = Delta / n + 2 * lam * Theta
    D[:, 0] = Delta[:, 0] / n
    return D


@wrong("Δ is a sum over n samples. Divide it by n.")
def _penalty_of_sum(Delta, Theta, n, lam):
    D = Delta + lam * Theta
    D[:, 0] = Delta[:, 0]
    return D


@wrong("The penalty has the wrong sign: it adds λΘ, so that a step makes Θ smaller.")
def _penalty_grows(Delta, Theta, n, lam):
    D = Delta / n - lam * Theta
    D[:, 0] = Delta[:, 0] / n
    return D


@wrong("Column 0 is lost: the bias keeps its own mean gradient Δ/n.")
def _penalty_frozen_bias(Delta, Theta, n, lam):
    D = Delta / n + lam * Theta
    D[:, 0] = 0
    return D


@wrong("Column 0 is a sum: without a penalty, it is still the mean Δ/n.")
def _penalty_bias_sum(Delta, Theta, n, lam):
    D = Delta / n + lam * Theta
    D[:, 0] = Delta[:, 0]
    return D


@wrong("The penalty is half too small: the gradient of λ/2 |Θ|² is λΘ, not λΘ/2.")
def _penalty_halved(Delta, Theta, n, lam):
    D = Delta / n + lam / 2 * Theta
    D[:, 0] = Delta[:, 0] / n
    return D


# ---------------------------------------------------------- wrong answers: ELU


@wrong("ELU without α: below zero it is α(e^z - 1), not e^z - 1.")
def _elu_plain(z, alpha):
    return np.where(z > 0, z, np.exp(z) - 1)


@wrong("The -1 is missing: below zero ELU is α(e^z - 1), which meets z at zero.")
def _elu_jump(z, alpha):
    return np.where(z > 0, z, alpha * np.exp(z))


@wrong("The -1 stands outside: it is α(e^z - 1), not α e^z - 1.")
def _elu_misplaced(z, alpha):
    return np.where(z > 0, z, alpha * np.exp(z) - 1)


@wrong("This is leaky ReLU: below zero ELU bends, α(e^z - 1), it is not a line αz.")
def _elu_leaky(z, alpha):
    return np.where(z > 0, z, alpha * z)


@wrong("Positive numbers are bent too. ELU leaves z as it is where z > 0.")
def _elu_everywhere(z, alpha):
    return alpha * (np.exp(z) - 1)


@wrong("The branches are swapped: np.where(z > 0, z, ...) takes z where z > 0.")
def _elu_swapped(z, alpha):
    return np.where(z > 0, alpha * (np.exp(z) - 1), z)


@wrong("The larger of z and α(e^z - 1) is not ELU: where z > 0, it may be the second.")
def _elu_maximum(z, alpha):
    return np.maximum(z, alpha * (np.exp(z) - 1))


@wrong("The sign is turned: below zero ELU is negative, α(e^z - 1).")
def _elu_positive(z, alpha):
    return np.where(z > 0, z, alpha * (1 - np.exp(z)))


@wrong("The derivative without α: below zero it is α e^z.")
def _elu_grad_plain(z, alpha):
    return np.where(z > 0, 1.0, np.exp(z))


@wrong("You return ELU itself. Its derivative is 1 above zero and α e^z below.")
def _elu_grad_value(z, alpha):
    return np.where(z > 0, z, alpha * (np.exp(z) - 1))


@wrong("The -1 has derivative 0: below zero it is α e^z, not α(e^z - 1).")
def _elu_grad_minus_one(z, alpha):
    return np.where(z > 0, 1.0, alpha * (np.exp(z) - 1))


@wrong("You feed g' with a: a = ELU(z) is not z. Below zero the derivative is α e^z.")
def _elu_grad_of_a(z, alpha):
    a = np.where(z > 0, z, alpha * (np.exp(z) - 1))
    return np.where(a > 0, 1.0, alpha * np.exp(a))


@wrong("Above zero the derivative of z is 1, not z.")
def _elu_grad_line(z, alpha):
    return np.where(z > 0, z, alpha * np.exp(z))


@wrong("Positive numbers too: where z > 0, ELU is z, and its derivative is 1.")
def _elu_grad_everywhere(z, alpha):
    return alpha * np.exp(z)


# -------------------------------------------------------- wrong answers: PReLU


def dz_of(dy, z, s):
    """The right dz."""
    return np.where(z > 0, dy, s * dy)


@wrong("ds is not summed: each slope serves the whole batch, so sum over the samples.")
def _prelu_unsummed(dy, z, s):
    return dz_of(dy, z, s), np.where(z > 0, 0, z * dy)


@wrong("ds is a mean over the batch. dy holds the 1/N already: sum over the samples.")
def _prelu_mean(dy, z, s):
    return dz_of(dy, z, s), np.where(z > 0, 0, z * dy).mean(0)


@wrong("ds sums over the neurons too. Every neuron has its own slope: sum over axis 0.")
def _prelu_one_slope(dy, z, s):
    return dz_of(dy, z, s), np.where(z > 0, 0, z * dy).sum()


@wrong("ds must not see samples above zero: there the slope has no say.")
def _prelu_all_samples(dy, z, s):
    return dz_of(dy, z, s), (z * dy).sum(0)


@wrong("ds lacks the upstream gradient: multiply z by dy before you sum.")
def _prelu_no_upstream(dy, z, s):
    return dz_of(dy, z, s), np.where(z > 0, 0, z).sum(0)


@wrong("dz is that of ReLU: below zero it is s * dy, not 0.")
def _prelu_dead(dy, z, s):
    return np.where(z > 0, dy, 0), np.where(z > 0, 0, z * dy).sum(0)


@wrong("ds has an s too many: the derivative of s*z in s is z.")
def _prelu_scaled(dy, z, s):
    return dz_of(dy, z, s), np.where(z > 0, 0, s * z * dy).sum(0)


@wrong("ds is summed along axis 1, over neurons. Sum over the samples: axis 0.")
def _prelu_wrong_axis(dy, z, s):
    return dz_of(dy, z, s), np.where(z > 0, 0, z * dy).sum(1)


@wrong("dz lacks the upstream gradient: it is dy above zero, and s * dy below.")
def _prelu_dz_alone(dy, z, s):
    return dz_of(np.ones(dy.shape), z, s), np.where(z > 0, 0, z * dy).sum(0)


@wrong("The two sides are swapped: the slope works below zero, in dz and in ds.")
def _prelu_swapped(dy, z, s):
    return np.where(z > 0, s * dy, dy), np.where(z > 0, z * dy, 0).sum(0)


# ------------------------------------------------------- wrong answers: maxout


def every_piece(x, w, b):
    """All pieces, (P, N, O)."""
    return np.stack([x @ w[p].T + b[p] for p in range(len(w))])


@wrong("The biases are missing: piece p is w[p] @ x + b[p], before the largest is taken.")
def _maxout_no_bias(x, w, b):
    z = every_piece(x, w, 0 * b)
    return z.max(0), z.argmax(0)


@wrong("The bias comes after the maximum. Add b[p] to piece p first, then compare.")
def _maxout_late_bias(x, w, b):
    z = every_piece(x, w, 0 * b)
    return z.max(0) + b.max(0), z.argmax(0)


@wrong("You add the pieces. Maxout keeps only the largest.")
def _maxout_sum(x, w, b):
    z = every_piece(x, w, b)
    return z.sum(0), z.argmax(0)


@wrong("You keep the smallest piece; maxout keeps the largest.")
def _maxout_min(x, w, b):
    z = every_piece(x, w, b)
    return z.min(0), z.argmin(0)


@wrong("You compare absolute values. Maxout takes the largest piece, sign and all.")
def _maxout_absolute(x, w, b):
    z = every_piece(x, w, b)
    winner = np.abs(z).argmax(0)
    return np.take_along_axis(z, winner[None], 0)[0], winner


@wrong("There is a ReLU too many: a maxout may be negative.")
def _maxout_clipped(x, w, b):
    z = every_piece(x, w, b)
    return np.maximum(z.max(0), 0), z.argmax(0)


@wrong("Of two equal pieces the first wins, as in np.argmax; you take the last.")
def _maxout_last_tie(x, w, b):
    z = every_piece(x, w, b)
    return z.max(0), len(w) - 1 - z[::-1].argmax(0)


def shared(dy, x, w, winner, share):
    """The right pass if share[p, n, o] is 1 for the winner and 0 for the others."""
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(w.shape[:2])
    for p in range(len(w)):
        g = dy * share[p]
        dx += g @ w[p]
        dw[p] = g.T @ x
        db[p] = g.sum(0)
    return dx, dw, db


def winners(w, winner):
    """1 where a piece won, (P, N, O)."""
    return np.stack([winner == p for p in range(len(w))]).astype(float)


@wrong("All pieces get the gradient. Only the winner of each output does.")
def _maxout_to_all(dy, x, w, winner):
    return shared(dy, x, w, winner, np.ones((len(w), *dy.shape)))


@wrong("The gradient is split among the pieces. The winner gets all of it.")
def _maxout_split(dy, x, w, winner):
    return shared(dy, x, w, winner, np.full((len(w), *dy.shape), 1 / len(w)))


@wrong("The losers get the gradient. It belongs to the winner.")
def _maxout_losers(dy, x, w, winner):
    return shared(dy, x, w, winner, 1 - winners(w, winner))


@wrong("Always piece 0 gets the gradient. Look up winner[n, o].")
def _maxout_first(dy, x, w, winner):
    return shared(dy, x, w, winner, winners(w, 0 * winner))


@wrong("= for +=: gradients of several samples and outputs meet in one place. Add them.")
def _maxout_overwritten(dy, x, w, winner):
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(w.shape[:2])
    for n, o in np.ndindex(dy.shape):
        p = winner[n, o]
        dx[n] = dy[n, o] * w[p, o]
        dw[p, o] = dy[n, o] * x[n]
        db[p, o] = dy[n, o]
    return dx, dw, db


@wrong("dw[winner, o] += adds only once where an index repeats: loop, or use np.add.at.")
def _maxout_repeats(dy, x, w, winner):
    dx, _, _ = shared(dy, x, w, winner, winners(w, winner))
    dw, db, o = np.zeros(w.shape), np.zeros(w.shape[:2]), np.arange(w.shape[1])
    dw[winner, o] += dy[:, :, None] * x[:, None]
    db[winner, o] += dy
    return dx, dw, db


@wrong("dx keeps only the last piece. Every piece that won somewhere adds to it: dx +=.")
def _maxout_dx_replaced(dy, x, w, winner):
    _, dw, db = shared(dy, x, w, winner, winners(w, winner))
    return np.where(winner == len(w) - 1, dy, 0) @ w[-1], dw, db


@wrong("dw and db are means. Sum over the samples: dy holds the 1/N already.")
def _maxout_means(dy, x, w, winner):
    dx, dw, db = shared(dy, x, w, winner, winners(w, winner))
    return dx, dw / len(x), db / len(x)


@wrong("The upstream gradient is lost: multiply by dy[n, o], it is not always 1.")
def _maxout_ones(dy, x, w, winner):
    return shared(np.ones(dy.shape), x, w, winner, winners(w, winner))


# ------------------------------------------- wrong answers: break it, and speed


def judge_steep(arguments, answer) -> str | None:
    """Return None if the shown version fails on the answer, else what is missing."""
    if not isinstance(answer, tuple | list) or len(answer) != 2 or np.size(answer[1]) != 1:
        return "Return two things: z, an array of numbers, and then s, one number."
    z, s = answer[0], np.ravel(answer[1])[0]
    z, s = np.asarray(z, np.float64), float(s)
    if z.size == 0 or not np.isfinite(z).all() or not np.isfinite(s):
        return "Give an array with at least one finite number, and a finite slope."
    right = np.where(z > 0, z, s * z)
    shown = np.maximum(s * z, z)
    if np.allclose(right, shown, rtol=1e-9, atol=0):
        return f"With s = {s:g} both give {right.ravel()[:4].tolist()}: nothing breaks."
    return None


@wrong("With a slope below 1 both versions agree. When is s*z below z for a negative z?")
def _gentle():
    return np.array([-1.0, 2.0]), 0.25


@wrong("For positive z and s below 1 both give z. Which side does a large s change?")
def _sunny():
    return np.array([1.0, 2.0]), 0.5


@wrong("s = 1 is the border: both versions give z itself. Go beyond.")
def _border():
    return np.array([-1.0, 2.0]), 1.0


@wrong("The output is a3 alone, after two layers; you return the hidden layer a2.")
def _fast_hidden(x, theta1, b1, theta2, b2):
    return sigmoid(x @ theta1.T + b1)


@wrong("The running sum is not reset: begin each neuron with its bias.")
def _fast_running(x, theta1, b1, theta2, b2):
    a2 = sigmoid(np.cumsum(x @ theta1.T + b1, axis=1))
    return sigmoid(np.cumsum(a2 @ theta2.T + b2, axis=1))


@wrong("The biases are missing: begin each sum with b[i].")
def _fast_without_bias(x, theta1, b1, theta2, b2):
    return _forward_without_bias.run(x, theta1, b1, theta2, b2)[1]


@wrong("The output has no sigmoid: a3 = g(z3), a probability between 0 and 1.")
def _fast_open_end(x, theta1, b1, theta2, b2):
    return _forward_open_end.run(x, theta1, b1, theta2, b2)[1]


@wrong("A range ends one too early: the last neuron of the layer before is left out.")
def _fast_short(x, theta1, b1, theta2, b2):
    a2 = sigmoid(x[:, :-1] @ theta1[:, :-1].T + b1)
    return sigmoid(a2[:, :-1] @ theta2[:, :-1].T + b2)


@wrong("Θ is read as [j, i]. Neuron i has row i: Θ[i, j] * x[n, j].")
def _fast_untransposed(x, theta1, b1, theta2, b2):
    return _forward_untransposed.run(x, theta1, b1, theta2, b2)[1]


@wrong("The hidden layer has no sigmoid: store 1 / (1 + np.exp(-total)) in a2.")
def _fast_collapsed(x, theta1, b1, theta2, b2):
    return _forward_collapsed.run(x, theta1, b1, theta2, b2)[1]


@wrong("The sigmoid has the wrong sign: it is 1 / (1 + np.exp(-total)), with a minus.")
def _fast_mirrored(x, theta1, b1, theta2, b2):
    return _forward_mirrored.run(x, theta1, b1, theta2, b2)[1]


def plain_loops(x, theta1, b1, theta2, b2):
    """The loops of the task, not compiled."""
    a2 = np.zeros((x.shape[0], theta1.shape[0]))
    a3 = np.zeros((x.shape[0], theta2.shape[0]))
    for n in range(x.shape[0]):
        for i in range(theta1.shape[0]):
            total = b1[i]
            for j in range(theta1.shape[1]):
                total += theta1[i, j] * x[n, j]
            a2[n, i] = 1 / (1 + np.exp(-total))
        for i in range(theta2.shape[0]):
            total = b2[i]
            for j in range(theta2.shape[1]):
                total += theta2[i, j] * a2[n, j]
            a3[n, i] = 1 / (1 + np.exp(-total))
    return a3


def wide(rng: np.random.Generator) -> tuple:
    """A batch of 100 samples of a 64-48-10 network."""
    shapes = (100, 64), (48, 64), (48,), (10, 48), (10,)
    return tuple(rng.normal(size=shape) for shape in shapes)


# ------------------------------------------------- what is behind a number


def row_of(title: str, a: np.ndarray, n: int) -> Panel:
    """Show a table with row n in a frame, or a vector with number n."""
    if a.ndim == 1:
        return Panel(title, a, (n,))
    return Panel(title, a, (n, 0), (1, a.shape[1]))


def column_of(title: str, a: np.ndarray, k: int) -> Panel:
    """Show a table with column k in a frame."""
    return Panel(title, a, (0, k), (len(a), 1))


def window_forward(arguments: tuple, index: tuple) -> Window:
    """Show which sum gives an activation."""
    x, theta1, b1, theta2, b2 = arguments
    which, n, i = index
    a2, _ = network(*arguments)
    a, theta, b = ((x, theta1, b1), (a2, theta2, b2))[which]
    terms = [f"{theta[i, j]:.3g}·{a[n, j]:.3g}" for j in range(theta.shape[1])]
    return Window(
        f"g({' + '.join(terms)} + {b[i]:.3g}) (weight·input, bias)",
        (
            row_of(("x", "a2")[which], a, n),
            row_of(("theta1", "theta2")[which], theta, i),
            row_of(("b1", "b2")[which], b, i),
        ),
    )


def window_fast(arguments: tuple, index: tuple) -> Window:
    """Show which sum gives an output."""
    return window_forward(arguments, (1, *index))


def window_backward(arguments: tuple, index: tuple) -> Window:
    """Show which deltas and activations give a gradient."""
    x, y, a2, a3, theta2 = arguments
    which, i, *j = index
    delta3 = np.asarray(a3, np.float64) - y
    delta2 = delta3 @ theta2 * a2 * (1 - a2)
    layer, delta, a = ((2, delta2, x), (3, delta3, a2))[which // 2]
    panels = (column_of(f"δ{layer}", delta, i),)
    if not j:
        return Window(f"the mean of column {i} of δ{layer}", panels)
    name = ("x", "a2")[which // 2]
    text = f"the mean over the samples of δ{layer}[n, {i}]·{name}[n, {j[0]}]"
    return Window(text, (*panels, column_of(name, a, j[0])))


def window_penalty(arguments: tuple, index: tuple) -> Window:
    """Show the two entries that a gradient is made of."""
    Delta, Theta, n, lam = arguments
    text = f"{Delta[index]:.4g}/{n}"
    if index[1]:
        text += f" + {lam:g}·{Theta[index]:.4g}"
    return Window(text, (Panel("Delta", Delta, index), Panel("Theta", Theta, index)))


def window_elu(arguments: tuple, index: tuple) -> Window:
    """Show which number went in."""
    z, alpha = arguments
    return Window(f"z = {z[index]:.4g}, alpha = {alpha:.4g}", (Panel("z", z, index),))


def window_prelu(arguments: tuple, index: tuple) -> Window:
    """Show which numbers give dz or ds."""
    dy, z, s = arguments
    which, *place, c = index
    if which == 0:
        n = place[0]
        text = f"z = {z[n, c]:.4g}, dy = {dy[n, c]:.4g}, s = {s[c]:.4g}"
        return Window(text, (Panel("dy", dy, (n, c)), Panel("z", z, (n, c))))
    terms = [f"{z[n, c]:.3g}·{dy[n, c]:.3g}" for n in range(len(z)) if z[n, c] <= 0]
    text = f"{' + '.join(terms) or '0'} (z·dy where z is not above 0)"
    return Window(text, (column_of("dy", dy, c), column_of("z", z, c)))


def window_maxout(arguments: tuple, index: tuple) -> Window:
    """Show the pieces of an output."""
    x, w, b = arguments
    _, n, o = index
    pieces = [b[p, o] + sum(w[p, o] * x[n]) for p in range(len(w))]
    text = f"the pieces are {', '.join(f'{piece:.4g}' for piece in pieces)}"
    return Window(text, (row_of("x", x, n), Panel(f"pieces of output {o}", pieces)))


def window_maxout_backward(arguments: tuple, index: tuple) -> Window:
    """Show the upstream gradient and who won."""
    dy, _, _, winner = arguments
    which, k, *rest = index
    if which == 0:
        text = f"sample {k}: dy[{k}, o]·w[winner[{k}, o], o, {rest[0]}] over the outputs o"
        return Window(text, (row_of("dy", dy, k), row_of("winner", winner, k)))
    o = rest[0]
    what = f"dy[n, {o}]" + (f"·x[n, {rest[1]}]" if which == 1 else "")
    text = f"{what} over the samples n in which piece {k} won output {o}"
    return Window(text, (column_of("dy", dy, o), column_of("winner", winner, o)))


QUESTIONS = (
    Question(
        name="mlp_forward",
        points=3,
        oracle=network,
        cases=nets,
        mutants=(
            _forward_untransposed,
            _forward_without_bias,
            _forward_without_b2,
            _forward_bias_outside,
            _forward_open_end,
            _forward_collapsed,
            _forward_mirrored,
            _forward_fed_z,
            _forward_before_sigmoid,
        ),
        hints=(
            "One layer is z = a @ Θ.T + b: check it with the shapes, (N, n1) @ (n1, n2).",
            "The sigmoid of an array: 1 / (1 + np.exp(-z)).",
            "z2 = x @ theta1.T + b1, a2 = sigmoid(z2); then the same with theta2 and b2.",
        ),
        window=window_forward,
    ),
    Question(
        name="mlp_backward",
        points=5,
        oracle=gradients,
        cases=passes,
        window=window_backward,
        mutants=(
            _backward_uphill,
            _backward_untransposed,
            _backward_prime_of_a,
            _backward_no_prime,
            _backward_squared,
            _backward_sums,
            _backward_prime_of_x,
            _backward_transposed,
            _backward_mean_twice,
            _backward_mean_of_all,
            _backward_bias_sums,
            _backward_tanh,
        ),
        hints=(
            "Begin with delta3 = a3 - y, of shape (N, n3).",
            "delta2 has the shape of a2, (N, n2). Which product of delta3 and theta2 does?",
            "A gradient has the shape of its weights: delta3.T @ a2 is (n3, n2). Then / N.",
        ),
    ),
    Question(
        name="regularised_gradient",
        points=2,
        oracle=penalised,
        cases=sums,
        window=window_penalty,
        mutants=(
            _penalty_everywhere,
            _penalty_spares_row,
            _penalty_divided,
            _penalty_doubled,
            _penalty_of_sum,
            _penalty_grows,
            _penalty_frozen_bias,
            _penalty_bias_sum,
            _penalty_halved,
        ),
        hints=(
            "Compute Delta / n + lam * Theta for all entries first.",
            "Then column 0 again, without the penalty: D[:, 0] = ...",
        ),
    ),
    Question(
        name="elu",
        points=1,
        oracle=elu_value,
        cases=pre_activations,
        mutants=(
            _elu_plain,
            _elu_jump,
            _elu_misplaced,
            _elu_leaky,
            _elu_everywhere,
            _elu_swapped,
            _elu_maximum,
            _elu_positive,
        ),
        hints=(
            "np.where(condition, a, b) takes a where the condition holds, and b elsewhere.",
            "Below zero: alpha * (np.exp(z) - 1).",
        ),
        window=window_elu,
    ),
    Question(
        name="elu_grad",
        points=2,
        oracle=elu_slope,
        cases=pre_activations,
        mutants=(
            _elu_grad_plain,
            _elu_grad_value,
            _elu_grad_minus_one,
            _elu_grad_of_a,
            _elu_grad_line,
            _elu_grad_everywhere,
        ),
        hints=(
            "Two lines of school calculus: what is the derivative of z, and of α(e^z - 1)?",
            "np.where(z > 0, 1.0, ...).",
        ),
        window=window_elu,
    ),
    Question(
        name="prelu_backward",
        points=3,
        oracle=prelu_gradients,
        cases=slopes,
        window=window_prelu,
        mutants=(
            _prelu_unsummed,
            _prelu_mean,
            _prelu_one_slope,
            _prelu_all_samples,
            _prelu_no_upstream,
            _prelu_dead,
            _prelu_scaled,
            _prelu_wrong_axis,
            _prelu_dz_alone,
            _prelu_swapped,
        ),
        hints=(
            "y = s*z below zero: its derivative in z is s, in s it is z. Multiply by dy.",
            "Slope s[c] met every sample of column c: sum over axis 0.",
        ),
    ),
    Question(
        name="maxout_forward",
        points=2,
        oracle=maxout_value,
        cases=pieces,
        window=window_maxout,
        mutants=(
            _maxout_no_bias,
            _maxout_late_bias,
            _maxout_sum,
            _maxout_min,
            _maxout_absolute,
            _maxout_clipped,
            _maxout_last_tie,
        ),
        hints=(
            "Piece p of all samples is x @ w[p].T + b[p], of shape (N, O).",
            "np.stack the pieces; then .max(axis=0) and .argmax(axis=0) over them.",
        ),
    ),
    Question(
        name="maxout_backward",
        points=3,
        oracle=maxout_gradients,
        cases=won,
        window=window_maxout_backward,
        mutants=(
            _maxout_to_all,
            _maxout_split,
            _maxout_losers,
            _maxout_first,
            _maxout_overwritten,
            _maxout_ones,
            _maxout_repeats,
            _maxout_dx_replaced,
            _maxout_means,
        ),
        hints=(
            "For each sample n and output o, let p = winner[n, o]: only w[p, o] took part.",
            "Several outputs reach the same x[n]: use +=.",
        ),
    ),
    Question(
        name="break_leaky",
        points=2,
        oracle=steep,
        cases=once,
        mutants=(_gentle, _sunny, _border),
        judge=judge_steep,
        hints=(
            "max(s*z, z) takes the larger number. Which should it take for a negative z?",
            "Make s*z the smaller of the two, for a negative z.",
        ),
    ),
    Question(
        name="mlp_forward_fast",
        points=3,
        oracle=prediction,
        cases=row_major,
        mutants=(
            _fast_hidden,
            _fast_running,
            _fast_without_bias,
            _fast_open_end,
            _fast_short,
            _fast_untransposed,
            _fast_collapsed,
            _fast_mirrored,
        ),
        hints=(
            "Three loops for each layer: sample n, neuron i, and j over the layer before.",
            "Begin each neuron with total = b1[i]; then total += theta1[i, j] * x[n, j].",
            "Put @njit above the def, and make a2 with np.zeros before the loops.",
        ),
        window=window_fast,
        speed=Speed(plain_loops, wide, floor=20),
    ),
)
