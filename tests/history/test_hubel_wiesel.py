"""course/history/hubel_wiesel: the cat experiment, with numbers."""

import numpy as np
import pytest

from course.history import hubel_wiesel as hw
from course.layers import conv2d_forward

ANGLES = np.arange(0, 180, 5.0)
SIZE, WAVE, WIDTH = 21, 8.0, 3.0


def curve(angle, phase=0.0):
    """Return the answers of a simple cell to a bar at each of ANGLES."""
    field = hw.gabor(SIZE, angle, WAVE, phase)
    return hw.simple_cells(hw.bars(SIZE, ANGLES, WIDTH), field).ravel()


def test_a_field_is_a_wave_under_a_bell():
    """Pixel (u, v) at 30 degrees, by the definition, one at a time."""
    w, expected = hw.gabor(9, 30, 6.0, phase=40, sigma=2.5, dtype=float), np.empty((9, 9))
    for u in range(9):
        for v in range(9):
            right, up = v - 4, 4 - u
            along = right * np.cos(np.pi / 6) + up * np.sin(np.pi / 6)
            across = up * np.cos(np.pi / 6) - right * np.sin(np.pi / 6)
            bell = np.exp(-(across**2 + 0.25 * along**2) / (2 * 2.5**2))
            expected[u, v] = bell * np.cos(2 * np.pi * across / 6 + 40 * np.pi / 180)
    expected -= expected.mean()
    np.testing.assert_allclose(w, expected / np.linalg.norm(expected), 0, 1e-12)


def test_bars_stand_where_they_are_asked_to():
    x = hw.bars(7, [0, 90, 45, 135], width=1, length=5)[:, 0]
    lying = np.zeros((7, 7))
    lying[3, 1:6] = 1
    np.testing.assert_array_equal(x[0], lying)
    np.testing.assert_array_equal(x[1], lying.T)
    assert x[2, 2, 4] == x[2, 4, 2] == 1 and x[2, 2, 2] == 0, "45 degrees rises"
    np.testing.assert_allclose(x[3], x[2, :, ::-1], 0, 1e-6)


def test_a_bar_is_shifted_across_itself():
    up, left = hw.bars(7, [0, 90], width=1, shift=2)[:, 0]
    assert up[1].all() and up.sum() == 7
    assert left[:, 1].all() and left.sum() == 7
    thick = hw.bars(7, 0, width=2)[0, 0]
    np.testing.assert_array_equal(thick[:, 0], [0, 0, 0.5, 1, 0.5, 0, 0])


@pytest.mark.parametrize("angle", range(0, 180, 15))
def test_a_simple_cell_prefers_its_own_orientation(angle):
    answers = curve(angle)
    assert ANGLES[answers.argmax()] == angle
    across = answers[(answers.argmax() + 18) % 36]
    assert across < 0.2 * answers.max(), "a bar at right angles"
    assert 10 < hw.half_width(ANGLES, answers) < 20


def test_a_bar_turned_by_180_degrees_is_the_same_bar():
    np.testing.assert_allclose(hw.bars(SIZE, ANGLES), hw.bars(SIZE, ANGLES + 180), 0, 1e-5)


def test_even_light_and_darkness_say_nothing():
    field = hw.gabor(SIZE, 30)
    light = np.ones((1, 1, SIZE, SIZE), np.float32)
    assert hw.simple_cells(light, field).max() < 1e-5
    assert hw.simple_cells(0 * light, field).max() == 0


def test_a_simple_cell_is_a_sum_and_a_threshold(rng):
    x = rng.normal(size=(2, 1, 8, 9))
    w = rng.normal(size=(3, 4))
    y = hw.simple_cells(x, w)
    windows = np.lib.stride_tricks.sliding_window_view(x[:, 0], (3, 4), (1, 2))
    expected = np.maximum((windows * w).sum(axis=(3, 4)), 0)
    np.testing.assert_allclose(y[:, 0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("angle", [0, 45, 90])
def test_a_complex_cell_does_not_mind_where_the_bar_is(angle):
    """It answers alike wherever its simple cells are; each of them, to one place."""
    reach, field = 7, hw.gabor(15, angle, 6.0)
    shifts = np.arange(-2, 3) * 1.0
    x = hw.bars(15 + reach - 1, angle, width=3, shift=shifts)
    simple = hw.simple_cells(x, field)[:, 0, reach // 2, reach // 2]
    complex_ = hw.complex_cells(x, field, reach)[:, 0, 0, 0]
    assert hw.modulation(simple) == pytest.approx(1)
    assert hw.modulation(complex_) < 0.1
    assert complex_[2] == pytest.approx(simple[2]), "and it keeps its orientation:"
    across = hw.bars(15 + reach - 1, angle + 90, width=3)
    assert hw.complex_cells(across, field, reach).max() < 0.2 * complex_.max()


def test_an_energy_cell_does_not_mind_the_phase_of_a_grating():
    """sin^2 + cos^2 = 1; a simple cell is silent for half of the phases."""
    even, odd = (hw.gabor(25, 0, 8.0, phase, dtype=float) for phase in (0, 90))
    rows, phases = np.arange(25)[None, :, None], np.arange(0, 360, 30)[:, None, None]
    wave = np.cos(2 * np.pi * rows / 8 + np.radians(phases)) * np.ones((1, 1, 25))
    energy = hw.energy_cells(wave[:, None], even, odd).ravel()
    simple = hw.simple_cells(wave[:, None], even).ravel()
    assert hw.modulation(energy) < 0.05
    assert hw.modulation(simple) == 1
    assert (simple == 0).mean() >= 0.4


@pytest.mark.parametrize("angle", [0, 30, 90, 135])
def test_a_hypercomplex_cell_answers_less_to_a_bar_that_is_too_long(angle):
    lengths = np.arange(1, 42, 2.0)
    x = hw.bars(45, angle, width=3, length=lengths)
    field = hw.gabor(15, angle, 6.0)
    y = hw.hypercomplex_cells(x, field, angle, apart=10)
    middle = tuple(n // 2 for n in y.shape[2:])
    ended = y[:, 0, *middle]
    simple = hw.simple_cells(x, field)[:, 0, 15, 15]
    best = lengths[ended.argmax()]
    assert 5 <= best <= 19
    assert ended[-1] < 0.05 * ended.max(), "a long bar silences it"
    assert simple[-1] > 0.95 * simple.max(), "but not a simple cell"


def test_ends_beyond_the_image_are_refused():
    x, w = hw.bars(15), hw.gabor(9)
    with pytest.raises(ValueError, match="images of 15x15 pixels are too small for ends 4"):
        hw.hypercomplex_cells(x, w, 0, apart=4)


def test_half_width_of_a_known_curve():
    """cos(2 a) has fallen to half after 30 degrees; straight lines miss by little."""
    for peak in (0, 40, 175):
        answers = np.maximum(np.cos(2 * np.radians(ANGLES - peak)), 0)
        assert hw.half_width(ANGLES, answers) == pytest.approx(30, abs=0.1)
    with pytest.raises(ValueError, match="never fall to half of the largest"):
        hw.half_width(ANGLES, np.ones(36))


def test_nearby_cells_look_at_nearby_places():
    """Measured centres of a stack of two layers are those of the geometry: 3.5 + 4 i."""
    w1, w2 = np.full((1, 1, 4, 4), 0.1, np.float32), np.full((2, 1, 3, 3), 0.1, np.float32)

    def respond(x):
        return conv2d_forward(conv2d_forward(x, w1, stride=2), w2, stride=2)

    centres = hw.field_centres(respond, 22)
    rows, columns = np.indices(centres.shape[:2])
    np.testing.assert_allclose(centres[..., 0], 3.5 + 4 * rows, rtol=1e-5)
    np.testing.assert_allclose(centres[..., 1], 3.5 + 4 * columns, rtol=1e-5)


def test_modulation_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no response is above 0"):
        hw.modulation(np.zeros(3))


def test_a_wave_too_short_for_pixels_is_refused():
    with pytest.raises(ValueError, match="wavelength is 1 pixels; it must be at least 2"):
        hw.gabor(9, wavelength=1)
