"""report.html in a real Chromium: on a desktop, on a phone, in the dark and on paper."""

import re
from contextlib import contextmanager

import pytest

from fracture_det.reporting.writer import write_report
from tests.reporting.reports import HOSTILE, bare, draw_crops, realistic
from tests.webapp.browser import Witness

pytestmark = pytest.mark.browser

DESKTOP, PHONE = (1280, 900), (390, 844)
# An A4 page without its margins, 180 mm, at 96 CSS pixels per inch.
PAPER = (680, 1000)
A4_PT = (595, 842)

# Text and background as they are painted, for every element that holds text of its own.
CONTRASTS = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(each).backgroundColor);
      if (a > 0) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join("");
    if (!own || element.closest("svg") || !element.checkVisibility()) continue;
    const [one, other] = [light(parse(getComputedStyle(element).color).slice(0, 3)), light(behind(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    found.push([ratio, own.slice(0, 40)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    found = {}
    for name, report in (("realistic", realistic()), ("bare", bare())):
        folder = tmp_path_factory.mktemp(name)
        draw_crops(report, folder)
        write_report(report, folder)
        found[name] = (folder / "report.html").as_uri()
    return found


@contextmanager
def opened(browser, address, size=DESKTOP, scheme="light"):
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, java_script_enabled=True, offline=True
    )
    page = context.new_page()
    witness = Witness()
    witness.watch(page)
    page.goto(address)
    yield page
    context.close()
    assert witness.complaints == []
    assert [one for one in witness.requests if one != address and not one.startswith("data:")] == []


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.mark.parametrize("name", ["realistic", "bare"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_network_complaint_or_sideways_scrolling(browser, addresses, name, size, scheme):
    with opened(browser, addresses[name], size, scheme) as page:
        assert page.get_by_role("heading", level=1).inner_text() == "Evaluation of a fracture detector"
        assert page.get_by_text("Research use only; not a medical device.").first.is_visible()
        assert overflow(page) <= 0
        ratios = page.evaluate(CONTRASTS)
        assert len(ratios) > 50
        assert [each for each in ratios if each[0] < 4.5] == []


def test_the_desktop_shows_the_paragraph_then_the_one_figure_then_the_notes_and_contents_beside(browser, addresses):
    with opened(browser, addresses["realistic"]) as page:
        tops = [page.locator(one).bounding_box()["y"] for one in ("#summary", ".overview", "#known-first", "#boxes")]
        assert tops == sorted(tops)
        assert page.locator(".overview .broad svg").is_visible()
        assert not page.locator(".overview .narrow").first.is_visible()
        contents, main = page.locator("nav").bounding_box(), page.locator("main").bounding_box()
        assert contents["x"] + contents["width"] <= main["x"]
        assert page.locator("img").evaluate_all("all => all.every((one) => one.complete && one.naturalWidth > 0)")
        assert page.get_by_text(HOSTILE.split(" & ")[0]).first.is_visible()


def test_the_contents_lead_to_the_sections(browser, addresses):
    with opened(browser, addresses["realistic"]) as page:
        for link in page.locator("nav a").all():
            link.click()
            target = page.locator(link.get_attribute("href"))
            assert target.get_by_role("heading").first.is_visible()


def test_on_a_phone_wide_tables_scroll_in_their_own_box_and_the_halves_of_the_figure_stand_below_each_other(
    browser, addresses
):
    with opened(browser, addresses["realistic"], PHONE) as page:
        widths = page.locator(".scroll").evaluate_all("all => all.map((one) => [one.scrollWidth, one.clientWidth])")
        assert sum(inner > outer for inner, outer in widths) > 5
        assert all(outer <= PHONE[0] for _, outer in widths)
        assert not page.locator(".overview .broad").is_visible()
        halves = [one.bounding_box() for one in page.locator(".overview .narrow").all()]
        assert halves[0]["y"] + halves[0]["height"] <= halves[1]["y"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_stand_on_white_whatever_the_scheme(browser, addresses, scheme):
    with opened(browser, addresses["realistic"], scheme=scheme) as page:
        colours = page.locator(".card").evaluate_all("all => all.map((one) => getComputedStyle(one).backgroundColor)")
        assert len(colours) >= 9
        assert set(colours) == {"rgb(255, 255, 255)"}


def test_paper_is_white_has_no_contents_and_cuts_nothing_off_at_its_edge(browser, addresses):
    with opened(browser, addresses["realistic"], PAPER, "dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 35, 41)"
        assert not page.locator("nav").is_visible()
        edges = page.locator("table, svg, img, p, li").evaluate_all(
            "all => all.filter((one) => one.checkVisibility()).map((one) => one.getBoundingClientRect().right)"
        )
        assert max(edges) <= PAPER[0] + 1
        cells = page.locator("td, th").evaluate_all(
            "all => all.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.innerText)"
        )
        assert cells == []
        heads = page.locator("thead").evaluate_all("all => all.map((one) => getComputedStyle(one).display)")
        assert set(heads) == {"table-header-group"}
        kept = page.locator("tr, .drawing, .gallery li").evaluate_all(
            "all => all.map((one) => getComputedStyle(one).breakInside)"
        )
        assert set(kept) == {"avoid"}


@pytest.mark.parametrize(("name", "most"), [("realistic", 18), ("bare", 9)])
def test_it_prints_on_a4(browser, addresses, tmp_path, name, most):
    with opened(browser, addresses[name]) as page:
        pdf = page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF-")
    boxes = [tuple(map(float, one.split())) for one in re.findall(rb"/MediaBox\s*\[([^\]]+)\]", pdf)]
    assert {(round(right), round(top)) for _, _, right, top in boxes} == {A4_PT}
    assert 1 <= len(boxes) <= most
