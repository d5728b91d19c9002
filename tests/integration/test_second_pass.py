"""The second pass: beside a slow one in NumPy, and with the same bits for every budget and region."""

import gc
import pickle

import numpy as np
import pytest
from astropy.io import fits
from scipy import ndimage

import stacklib as sl
from stacklib.explore.masks import BESIDE, frame_verdicts
from stacklib.formats import scratch
from stacklib.integration import run, samples, second_pass, threads
from stacklib.integration.noise import read_with_excess, with_noise
from stacklib.integration.run import integrate_samples
from stacklib.integration.samples import Samples
from stacklib.integration.second_pass import find_masks
from stacklib.integration.starlight import settings_by_starlight
from stacklib.integration.threads import Integrated
from stacklib.kernel import pixels
from stacklib.kernel.verdicts import HIGH, KEPT, LOW, NO_DATA, verdicts
from stacklib.normalization.preparation import prepare
from stacklib.rejection.calibration import typical_variance
from stacklib.spatial.colour import around_hits
from stacklib.spatial.footprints import common_places, find_footprints, without_common
from stacklib.spatial.large_scale import large_structures
from stacklib.spatial.lines import find_lines, fixed_lines, line_mask
from stacklib.spatial.means import ABOVE, COLOUR, FOOTPRINT, LARGE_HIGH, LARGE_LOW, LINE, OWN
from stacklib.utils.filters.discs import grow

pytestmark = pytest.mark.filterwarnings("ignore::stacklib.StacklibWarning")

COUNT, HEIGHT, WIDTH = 8, 150, 203
PLANES = ("image", "uncertainty", "rejection_low", "rejection_high", "coverage")
ALL = dict(footprints="all", joint_colour=True, large_scale_low=True, large_scale_high=True)


def make(folder, channels, count=COUNT, seed=3):
    """Frames of stars and noise, some with a trail, a dark blot, hits and a border without data."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    sky = np.full((HEIGHT, WIDTH), 0.1)
    for _ in range(25):
        top, left, light = rng.uniform(0, HEIGHT), rng.uniform(0, WIDTH), rng.uniform(0.01, 0.2)
        sky += light * np.exp(-((y - top) ** 2 + (x - left) ** 2) / 6.0)
    for i in range(count):
        noise = 0.002 * (1 + 0.5 * (i % 3))
        light = np.zeros((HEIGHT, WIDTH))
        if i in (2, 5):
            distance = np.abs((y - 40 - 10 * i) * np.cos(0.3 + 0.2 * i) - (x - 100) * np.sin(0.3 + 0.2 * i))
            light += 2.5 * noise * np.exp(-0.5 * (distance / 1.2) ** 2)
        if i == 4:
            light -= 3 * noise * np.exp(-0.5 * ((y - 30) ** 2 + (x - 150) ** 2) / 9.0)
        image = sky + light + noise * rng.standard_normal((channels, HEIGHT, WIDTH))
        for _ in range(15):
            c, row, column = rng.integers(channels), rng.integers(HEIGHT), rng.integers(WIDTH)
            image[c, row, column] += 20 * noise
        if i == 6:
            image[:, :, :7] = 0
        fits.writeto(folder / f"light_{i:02}.fits", image.astype(np.float32).squeeze())
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {n: make(tmp_path_factory.mktemp(f"channels_{n}"), n) for n in (1, 3)}


def recipe_for(rule="winsorized_sigma", **changes):
    given = dict(rejection=rule, allow_unregistered=True, output_range="truncate", weights="noise") | changes
    return sl.Recipe(**given)


def integrate(folder, recipe, **options):
    return sl.integrate(folder, recipe, progress=False, **options)


@pytest.fixture(scope="module", params=[("winsorized_sigma", 1), ("noise_model", 3)], ids=lambda p: p[0])
def whole(request, folders):
    rule, channels = request.param
    return integrate(folders[channels], recipe_for(rule, **ALL))


def assert_same(found, whole, left=0, top=0):
    height, width = found.image.shape[1:]
    part = np.s_[:, top : top + height, left : left + width]
    for name in PLANES:
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name)[part], err_msg=name)


def assert_same_masks(found, whole):
    assert found.region == whole.region and list(found) == list(whole)
    assert found.lines == whole.lines and found.unused == whole.unused
    for i, channel in whole:
        np.testing.assert_array_equal(found.flags(i, channel), whole.flags(i, channel))


def folder_of(result):
    return result.preparation.frames[0].path.parent


def find_hits(rejected, z):
    """Return where a sample of any channel is a hit, bool (height, width)."""
    return ((z > 7) | (rejected & (np.abs(z) > 5))).any(axis=0)


def without(footprints, common):
    """Return footprints without those on common places, bool."""
    bits = without_common(np.packbits(footprints, axis=1), np.packbits(common, axis=1))
    return np.unpackbits(bits, axis=1, count=footprints.shape[1]).astype(bool)


def slow_masks(p, lines_used):
    """Find the masks in whole arrays."""
    recipe, means = p.recipe, second_pass.spatial_means(p)
    channels, height, width = p.frames.channels, p.frames.height, p.frames.width
    z = np.empty((channels, p.count, height, width), np.float32)
    verdict = np.empty(z.shape, np.uint8)
    protected = np.empty((channels, height, width), bool)
    by_starlight = settings_by_starlight(p, [with_noise(p, c) for c in range(channels)], 1)
    for c in range(channels):
        settings = with_noise(p, c)
        raw, excess = read_with_excess(p, settings, c, (0, height), slice(0, width))
        verdict[c] = verdicts(raw.reshape(p.count, -1), settings, excess=excess.reshape(-1)).reshape(
            raw.shape
        )
        kept = verdict[c] == KEPT
        y, own = (
            raw.astype(float) * each.rejection_factor[:, None, None] + each.rejection_offset[:, None, None]
            for each in (settings, by_starlight[c])
        )
        w, s = (values[:, None, None] for values in (settings.weights, by_starlight[c].relative_noise))
        weight = (w * kept).sum(axis=0)
        mean = np.where(kept, w * y, 0).sum(axis=0) / weight
        sigma = np.sqrt(np.interp(mean, *settings.curve))
        further = typical_variance(tuple(settings.relative_noise)) * (excess.astype(float) ** 2 - 1)
        # The noise of a mean with all frames, in proportion to the weights.
        shared = ((w * s) ** 2).sum() / w.sum()
        for i in range(p.count):
            others = weight - w[i] * kept[i]
            with np.errstate(invalid="ignore", divide="ignore"):
                # As if the frame were among the others with the light of its stars.
                apart = (own[i] - mean) * np.where(kept[i], weight / others, 1)
                z[c, i] = apart / (sigma * np.sqrt(s[i] ** 2 + further + shared / others))
        z[c][verdict[c] == NO_DATA] = np.nan
        cross = ndimage.generate_binary_structure(2, 1)
        protected[c] = ndimage.binary_dilation(excess > 1.34, cross)
    flags = np.zeros((p.count, channels, height, width), np.uint8)

    def add(where, number):
        if not number & ABOVE:
            flags[where] &= ~np.uint8(ABOVE)
        flags[where] |= np.uint8(number)

    most = int(2 + 0.03 * p.count)
    rejected = (verdict == LOW) | (verdict == HIGH)
    hits = [find_hits(rejected[:, i], z[:, i]) for i in range(p.count)]
    too_often = np.sum(hits, axis=0) > most
    for i in range(p.count):
        for c in range(channels):
            size = recipe.large_scale_layers, recipe.large_scale_growth
            low, high = (large_structures(verdict[c, i] == side, *size) for side in (LOW, HIGH))
            flags[i, c, low] |= LARGE_LOW
            flags[i, c, high] |= LARGE_HIGH | ABOVE
    for c in range(channels):
        packed = [find_footprints(z[c, i], protected[c]) for i in range(p.count)]
        planes = np.unpackbits(packed, axis=-1, count=width).astype(bool)
        grown = np.array([[grow(plane, 2) for plane in planes[:, side]] for side in range(2)])
        common = common_places(*grown.sum(axis=1), p.count)
        for side, places, found in zip((0, ABOVE), common, grown, strict=True):
            for i in range(p.count):
                add(np.s_[i, c, without(found[i], places)], FOOTPRINT | side)
    if "colour" in means:
        for i in range(p.count):
            bright = find_hits((verdict[:, i] == HIGH), z[:, i])
            add(np.s_[i, :, around_hits(hits[i], too_often)], COLOUR)
            add(np.s_[i, :, around_hits(bright, too_often)], COLOUR | ABOVE)
    lines = []
    for i in range(p.count):
        together = z[:, i].sum(axis=0) / np.float32(np.sqrt(channels))
        lines.append(find_lines(together, protected.any(axis=0)))
        for line in lines[i] if lines_used else []:
            add(np.s_[i, :, line_mask(line, (height, width))], LINE | ABOVE)
    flags[np.moveaxis(verdict, 0, 1) == NO_DATA] = 0
    flags[flags == ABOVE] = 0
    return flags, lines


def test_masks_are_those_of_a_slow_search(whole):
    p, masks = whole.preparation, whole.masks
    flags, lines = slow_masks(p, lines_used=True)
    found = np.stack([[masks.flags(int(i), c) for c in range(p.frames.channels)] for i in p.used])
    # Rounding decides few of them.
    assert np.count_nonzero(found != flags) <= 5e-5 * flags.size
    for flag in (FOOTPRINT, LINE, ABOVE):
        assert np.count_nonzero(found & flag) > 100
    for i, own in zip(p.used, lines, strict=True):
        assert len(masks.lines.get(int(i), [])) == len(own)
    assert set(masks.lines) == {2, 5}


def test_masked_samples_are_absent_and_count(whole):
    p, masks = whole.preparation, whole.masks
    ready = Samples(p.frames)
    values = ready.values(p.marks).copy()
    flags = np.stack([[masks.flags(i, c) for i in range(COUNT)] for c in range(len(values))])
    values[flags > 0] = np.nan
    expected = integrate_samples(ready.with_values(values), p)
    np.testing.assert_array_equal(whole.image, expected.image)
    np.testing.assert_array_equal(whole.uncertainty, expected.uncertainty)
    above = (flags & ABOVE) > 0
    high, low = above.sum(axis=1), ((flags > 0) & ~above).sum(axis=1)
    for name, more in (("rejection_low", low), ("rejection_high", high), ("coverage", low + high)):
        found = COUNT * (getattr(whole, name) - getattr(expected, name))
        np.testing.assert_allclose(found, more, atol=1e-4, err_msg=name)
    for c, (counts, fallen) in enumerate(zip(whole.counts, whole.mask_counts, strict=True)):
        np.testing.assert_array_equal(fallen.total, (flags[c] > 0).sum(axis=(1, 2)))
        np.testing.assert_array_equal(counts.low, expected.counts[c].low)
        np.testing.assert_array_equal(counts.data, expected.counts[c].data + fallen.total)


def test_coverage_is_that_of_the_data(whole, folders):
    off = dict(footprints="off", joint_colour=False, large_scale_low=False, large_scale_high=False)
    plain = integrate(folder_of(whole), whole.recipe.replace(**off))
    np.testing.assert_array_equal(whole.coverage, plain.coverage)
    assert plain.masks is None and plain.masked == {} and len(plain.trails) == 0
    assert "rejected_trail" not in plain.frames.colnames


def test_table_and_trails_tell_what_fell_to_which_means(whole):
    table, trails = whole.frames, whole.trails
    trail = np.reshape(np.array(table["rejected_trail"]), (COUNT, -1)).mean(axis=1)
    assert np.flatnonzero(trail > 0.005).tolist() == [2, 5]
    total = sum(fraction for fraction in whole.masked.values())
    data = np.stack([counts.data for counts in whole.counts], axis=1)
    fallen = np.stack([counts.total for counts in whole.mask_counts], axis=1)
    np.testing.assert_allclose(total * data, fallen)
    assert trails["file"].tolist() == ["light_02.fits", "light_05.fits"]
    assert trails["number"].tolist() == [1, 1] and trails["used"].all()
    assert trails["length"].min() > 150 and trails["x0"].unit == "pix"
    # Half of the samples are in the mean that a trail is compared with.
    assert 1.5 < trails["peak"].min() < trails["peak"].max() < 4 * np.sqrt(len(whole.image))


def test_without_anything_found_the_bits_stay(folders, monkeypatch):
    folder = folders[1]
    plain = integrate(folder, recipe_for(footprints="off"))
    monkeypatch.setattr("stacklib.integration.search.find_lines", lambda *given, **options: [])
    nothing = lambda z, *given: np.zeros((2, len(z), -(-z.shape[1] // 8)), np.uint8)  # noqa: E731
    monkeypatch.setattr("stacklib.integration.search.find_footprints", nothing)
    found = integrate(folder, recipe_for(footprints="all"))
    assert_same(found, plain)
    assert not found.masks and found.masked["line"].tolist() == [[0.0]] * COUNT
    for a, b in zip(found.counts, plain.counts, strict=True):
        np.testing.assert_array_equal(a.table, b.table)


def test_many_frames_are_counted_in_two_bytes(whole, monkeypatch):
    monkeypatch.setattr(pixels, "ONE_BYTE", 1)
    kinds, original = [], second_pass.along_edge

    def noted(line, count):
        kinds.append(count.dtype)
        return original(line, count)

    monkeypatch.setattr(second_pass, "along_edge", noted)
    found = integrate(folder_of(whole), whole.recipe)
    assert set(kinds) == {np.dtype(np.uint16)}
    assert_same(found, whole)
    assert_same_masks(found.masks, whole.masks)


def small_bands(monkeypatch):
    """Read in bands, of a few rows."""
    monkeypatch.setattr(samples, "LEAST_BAND_BYTES", COUNT * 4 * WIDTH * 12)
    monkeypatch.setattr(Samples, "fits", lambda self: False)


@pytest.mark.parametrize("options", [{"memory": "1MB", "threads": 3}, {"threads": 1}])
def test_budget_and_threads_do_not_matter(whole, options, monkeypatch):
    small_bands(monkeypatch)
    held = scratch._memory.size
    found = integrate(folder_of(whole), whole.recipe, **options)
    # All of it is in scratch space.
    assert scratch._memory.size == held
    assert_same(found, whole)
    assert_same_masks(found.masks, whole.masks)
    for name in whole.masked:
        np.testing.assert_array_equal(found.masked[name], whole.masked[name])


@pytest.mark.parametrize("many", [1.0, 0.0])
@pytest.mark.parametrize(
    "recipe",
    [
        recipe_for(**ALL, combination="median", min_weight=0.3),
        recipe_for("sigma", footprints="trails", weights="none", normalization="none"),
        recipe_for("noise_model", footprints="all", output_bits="64", large_scale_high=True),
    ],
    ids=lambda recipe: recipe.rejection,
)
def test_only_pixels_that_lose_samples_are_integrated_twice(folders, recipe, many, monkeypatch):
    again, integrate_again = [], Integrated.without

    def noted(self, *given):
        again.append(given)
        integrate_again(self, *given)

    monkeypatch.setattr(second_pass, "MANY", many)
    monkeypatch.setattr(Integrated, "without", noted)
    once = integrate(folders[1], recipe, threads=3)
    assert again if many else not again
    for _, places, lost in again:
        assert 0 < places.size < 0.3 * HEIGHT * WIDTH and lost.any(axis=0).all()
    again.clear()
    monkeypatch.setattr(run, "integrates_meanwhile", lambda *given: False)
    twice = integrate(folders[1], recipe)
    assert not again
    assert_same(once, twice)
    assert_same_masks(once.masks, twice.masks)
    for name in ("counts", "mask_counts"):
        for a, b in zip(getattr(once, name), getattr(twice, name), strict=True):
            np.testing.assert_array_equal(a.table, b.table)


@pytest.mark.parametrize("region", [(31, 22, 90, 100), (0, 0, 203, 9), (202, 0, 1, 150)])
def test_a_region_has_the_bits_of_the_whole(whole, region):
    found = integrate(folder_of(whole), whole.recipe, region=region)
    assert_same(found, whole, *region[:2])
    assert_same_masks(found.masks, whole.masks)


def test_masks_are_found_again(whole):
    """For pictures and stories, without a run."""
    p = prepare(sl.open_frames(folder_of(whole)), whole.recipe)
    for region in (None, (40, 30, 20, 10)):
        assert_same_masks(find_masks(Samples(p.frames, region), p), whole.masks)
    masks = pickle.loads(pickle.dumps(whole.masks))
    assert_same_masks(masks, whole.masks)
    line = whole.trails[0]
    x, y = round((line["x0"] + line["x1"]) / 2), round((line["y0"] + line["y1"]) / 2)
    assert (whole.masks.at(x, y, 0, p.used) & LINE > 0).tolist() == [i == 2 for i in range(COUNT)]


def test_stories_and_verdicts_agree_with_the_run(whole):
    line = whole.trails[0]
    x, y = round((line["x0"] + line["x1"]) / 2), round((line["y0"] + line["y1"]) / 2)
    story = sl.explain(whole, x=x, y=y)
    assert story.verdict[2] == HIGH and story.reasons[2].startswith("rejected high: trail")
    assert story.value == pytest.approx(float(whole.image[0, y, x]), rel=1e-6)
    found, _ = frame_verdicts(whole, channel=0)
    rule, fallen = whole.counts[0], whole.mask_counts[0]
    for code, by_rule, by_masks in ((HIGH, rule.high, fallen.high), (LOW, rule.low, fallen.low)):
        np.testing.assert_array_equal((found == code).sum(axis=(1, 2)), by_rule)
        np.testing.assert_array_equal((found == code + BESIDE).sum(axis=(1, 2)), by_masks)


def test_masks_of_your_own(whole, tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:30, 50:60] = 7
    fits.writeto(tmp_path / "light_03_mask.fits", mask)
    recipe = recipe_for(whole.rule, footprints="off", joint_colour=False, masks=str(tmp_path))
    found = integrate(folder_of(whole), recipe)
    assert set(found.masked) == {"own"}
    for channel in range(len(whole.image)):
        flags = found.masks.flags(3, channel)
        np.testing.assert_array_equal((flags & OWN) > 0, mask > 0)
        assert 30 < np.count_nonzero(flags & ABOVE) < 70
        assert found.mask_counts[channel].total.tolist() == [0, 0, 0, 100, 0, 0, 0, 0]
        assert not found.masks.flags(2, channel).any()
    part = integrate(folder_of(whole), recipe, region=(55, 25, 30, 30))
    assert_same(part, found, 55, 25)
    assert part.mask_counts[0].total.sum() == 25


def test_trails_can_be_ignored(whole):
    found = integrate(folder_of(whole), whole.recipe.replace(ignore_trails=whole.trails["name"][0]))
    assert found.trails["used"].tolist() == [False, True]
    assert found.trails["reason"].tolist() == ["ignored", ""]
    for name in ("x0", "y0", "x1", "y1", "peak"):
        np.testing.assert_array_equal(found.trails[name], whole.trails[name])
    flags = [found.masks.flags(i, 0) & LINE for i in (2, 5)]
    assert not flags[0].any() and flags[1].any()


def test_strength_reaches_the_search(folders):
    found = [
        integrate(folders[1], recipe_for(footprints="all", footprint_strength=strength))
        for strength in (0.5, 1.3)
    ]
    shares = [each.masked["footprint"].mean() + each.masked["line"].mean() for each in found]
    assert shares[0] < 0.5 * shares[1]


def test_some_sample_stays(folders, monkeypatch):
    """A mask of all samples of a pixel takes none."""
    recipe = recipe_for(footprints="trails")
    line = integrate(folders[1], recipe).masks.lines[2][0]
    monkeypatch.setattr("stacklib.integration.search.find_lines", lambda *given, **options: [line])
    fixed = lambda lines, shape: [[False] for _ in lines]  # noqa: E731
    monkeypatch.setattr(second_pass, "fixed_lines", fixed)
    found = integrate(folders[1], recipe)
    # Frame 6 has a border without data.
    assert not found.masks
    assert_same(found, integrate(folders[1], recipe_for()))
    # Lines at one place in all frames take none either.
    monkeypatch.setattr(second_pass, "fixed_lines", fixed_lines)
    assert not integrate(folders[1], recipe).trails["used"].any()


def test_a_cancelled_run_leaves_nothing(folders, monkeypatch):
    small_bands(monkeypatch)
    live = scratch._current_arena().live
    calls = []

    def cancelled(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return search_frame(*args)

    search_frame = threads.search_frame
    monkeypatch.setattr(threads, "search_frame", cancelled)
    with pytest.raises(KeyboardInterrupt):
        integrate(folders[1], recipe_for(footprints="all"), threads=2)
    calls.clear()
    # What the exception refers to.
    gc.collect()
    assert scratch._current_arena().live == live


@pytest.mark.parametrize("name", ["find_masks", "integrate_and_search"])
def test_progress_reaches_the_end_in_order(folders, monkeypatch, name):
    seen = []

    def bar(total, title, unit, shown=True, part=None, **options):
        found = original(total, title, unit, False, part=part, **options)
        seen.append((title, part, found, total))
        return found

    original = run.progress_bar
    monkeypatch.setattr(run, "progress_bar", bar)
    reported = []
    search = getattr(run, name)

    def noted(*given):
        def add(pixels):
            reported.append(pixels)
            given[-1](pixels)

        return search(*given[:-1], add)

    monkeypatch.setattr(run, name, noted)
    monkeypatch.setattr(run, "integrates_meanwhile", lambda *given: name == "integrate_and_search")
    integrate(folders[1], recipe_for("noise_model", footprints="all"))
    parts = [part for _, part, _, _ in seen]
    assert parts == [(0, 40), (40, 80), (80, 100)]
    assert sum(reported) == seen[1][3] and min(reported) >= 0
