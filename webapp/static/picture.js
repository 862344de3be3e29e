// The zoomable image, with OpenSeadragon, open only while it is near the visible part of the page. A deep radiograph is
// drawn from its own samples as soon as they are there.
import { SampleLayer } from "./samples.js";

const LIBRARY = new URL("./vendor/openseadragon/openseadragon.min.js", import.meta.url);
const NEAR = "300px";
const SQUARES_FROM = 2; // screen pixels per image pixel from which pixels are shown as squares
let library;

function loadLibrary() {
  library ??= new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), { src: LIBRARY });
    script.addEventListener("load", () => resolve(window.OpenSeadragon));
    script.addEventListener("error", () => { library = undefined; reject(new Error("the viewer could not be loaded")); });
    document.head.append(styleSheetPlaceholder(), script);
  });
  return library;
}

// OpenSeadragon would add an inline style sheet, which the page's Content-Security-Policy forbids, unless it finds an
// element like this one.
function styleSheetPlaceholder() {
  const element = document.createElementNS("urn:none", "style");
  element.setAttribute("data-openseadragon-mobile-css", "");
  return element;
}

export class Picture {
  // `sheet` lies on the image and moves with it. `size` has the width, the height and the `window` of the image of 8 bits.
  constructor({ stage, frame, sheet, source, samples, size }) {
    Object.assign(this, { stage, frame, sheet, source, samples, size });
    this.greys = { filter: "none", slope: 1, intercept: 0 };
    this.place = null; // the view when the image was last closed
    this.listeners = { moved: [], failed: [], shallow: [] };
    this.observer = new IntersectionObserver((entries) => this.#setNear(entries.at(-1).isIntersecting), { rootMargin: NEAR });
    if (source) this.observer.observe(stage);
  }

  on(event, listener) { this.listeners[event].push(listener); }

  destroy() {
    this.observer.disconnect();
    this.#close();
  }

  #setNear(isNear) {
    this.isNear = isNear;
    if (isNear) this.#open(); else this.#close();
  }

  async #open() {
    try {
      const OpenSeadragon = await loadLibrary();
      if (!this.isNear || this.osd) return;
      this.osd = OpenSeadragon({ element: this.frame, tileSources: { type: "image", url: this.source }, ...options() });
      this.#listen(OpenSeadragon);
    } catch {
      this.#emit("failed");
    }
    if (this.samples && this.osd) await this.#openSamples(this.osd);
  }

  async #openSamples(osd) {
    this.loading = new AbortController();
    try {
      const layer = await SampleLayer.load(this.samples, this.size, this.loading.signal);
      if (this.osd !== osd) return;
      this.layer = layer;
      osd.drawer.canvas.after(layer.canvas);
      this.setGreys(this.greys);
    } catch {
      if (this.osd === osd) this.#emit("shallow");
    }
  }

  #listen(OpenSeadragon) {
    const { osd, sheet, size } = this;
    osd.addHandler("open", () => {
      osd.addOverlay({ element: sheet, location: new OpenSeadragon.Rect(0, 0, 1, size.height / size.width) });
      if (this.place) this.goTo(this.place);
      this.setGreys(this.greys);
      osd.world.getItemAt(0).addHandler("fully-loaded-change", () => { this.stage.dataset.ready = ""; });
    });
    for (const event of ["open-failed", "tile-load-failed"]) osd.addHandler(event, () => this.#emit("failed"));
    osd.addHandler("update-viewport", () => this.#drawSamples());
    osd.addHandler("viewport-change", () => { this.#sharpen(); this.#emit("moved"); });
    osd.addHandler("canvas-scroll", (event) => this.#scroll(event));
    osd.addHandler("zoom", () => this.#sharpen());
  }

  #close() {
    if (!this.osd) return;
    this.place = this.view();
    this.loading?.abort();
    this.osd.destroy();
    this.osd = this.layer = null;
    delete this.stage.dataset.ready;
    delete this.stage.dataset.depth;
  }

  #emit(event) { for (const listener of this.listeners[event]) listener(this); }

  // The wheel scrolls the page until the image has the focus.
  #scroll(event) {
    const { ctrlKey, metaKey } = event.originalEvent;
    if (ctrlKey || metaKey || this.stage.contains(document.activeElement)) return;
    event.preventDefaultAction = true;
    event.preventDefault = false;
  }

  #sharpen() {
    if (!this.#isOpen()) return;
    const zoom = this.zoom();
    this.osd.drawer.setImageSmoothingEnabled(zoom < SQUARES_FROM);
    // While the whole image is in view, a finger scrolls the page; zoomed in, it moves the image.
    const isHome = this.osd.viewport.getZoom(true) <= 1.01 * this.osd.viewport.getHomeZoom();
    this.osd.canvas.style.touchAction = this.osd.container.style.touchAction = isHome ? "pan-y" : "none";
  }

  #isOpen() { return Boolean(this.osd?.isOpen()); }

  // Screen pixels (CSS) per image pixel.
  zoom() { return this.#isOpen() ? this.osd.viewport.viewportToImageZoom(this.osd.viewport.getZoom(true)) : 1; }

  // The zoom relative to the whole image, and the centre in shares of it: the same view of an image of any size.
  view() {
    if (!this.#isOpen()) return this.place;
    const { viewport } = this.osd;
    const { x, y } = viewport.getCenter();
    return { times: viewport.getZoom() / viewport.getHomeZoom(), x, y: (y * this.size.width) / this.size.height };
  }

  goTo({ times, x, y }) {
    this.place = { times, x, y };
    if (!this.#isOpen()) return;
    const { viewport } = this.osd;
    viewport.zoomTo(times * viewport.getHomeZoom(), null, true);
    viewport.panTo(new window.OpenSeadragon.Point(x, (y * this.size.height) / this.size.width), true);
  }

  zoomBy(factor) { if (this.#isOpen()) this.osd.viewport.zoomBy(factor).applyConstraints(); }

  panBy(right, down) {
    if (!this.#isOpen()) return;
    const { viewport } = this.osd;
    const step = 0.15 * viewport.getBounds().width;
    viewport.panBy(new window.OpenSeadragon.Point(right * step, down * step)).applyConstraints();
  }

  fit() { if (this.#isOpen()) this.osd.viewport.goHome(); }

  // One image pixel on one pixel of the screen.
  actualSize() {
    if (!this.#isOpen()) return;
    const { viewport } = this.osd;
    viewport.zoomTo(viewport.imageToViewportZoom(1 / devicePixelRatio)).applyConstraints();
  }

  // Brings a box (x0, y0, x1, y1 in pixels) into view if it is not.
  reveal([x0, y0, x1, y1]) {
    if (!this.#isOpen()) return;
    const { viewport } = this.osd;
    const box = viewport.imageToViewportRectangle(x0, y0, x1 - x0, y1 - y0);
    const view = viewport.getBounds();
    const isInside = box.x >= view.x && box.y >= view.y && box.x + box.width <= view.x + view.width
      && box.y + box.height <= view.y + view.height;
    if (!isInside) viewport.panTo(box.getCenter()).applyConstraints();
  }

  // The image pixel at a point of the screen, kept within the image.
  pixelAt(clientX, clientY) {
    const frame = this.frame.getBoundingClientRect();
    const point = new window.OpenSeadragon.Point(clientX - frame.left, clientY - frame.top);
    const { x, y } = this.osd.viewport.viewerElementToImageCoordinates(point);
    return [Math.min(Math.max(x, 0), this.size.width), Math.min(Math.max(y, 0), this.size.height)];
  }

  // The part of the image in view: x0, y0, x1, y1 in pixels.
  inView() {
    if (!this.#isOpen()) return [0, 0, this.size.width, this.size.height];
    const frame = this.frame.getBoundingClientRect();
    return [...this.pixelAt(frame.left, frame.top), ...this.pixelAt(frame.right, frame.bottom)];
  }

  // How greys are shown: a `filter` for the image of 8 bits, and the line that it draws, for the samples.
  setGreys(greys) {
    this.greys = greys;
    if (!this.osd?.drawer) return;
    this.osd.drawer.canvas.style.filter = greys.filter;
    this.layer?.setGreys(greys, this.size.window);
    this.osd.forceRedraw();
  }

  #drawSamples() {
    if (!this.layer || !this.#isOpen()) return;
    this.layer.draw(this.osd, this.zoom() < SQUARES_FROM);
    this.osd.drawer.canvas.style.visibility = "hidden";
    this.stage.dataset.depth = this.size.bits;
  }

  // The sample at a pixel, null while only 8 bits are there.
  valueAt(x, y) { return this.layer?.valueAt(x, y) ?? null; }
}

function options() {
  const isReduced = matchMedia("(prefers-reduced-motion: reduce)").matches;
  return {
    drawer: "canvas", showNavigationControl: false, keyboardNavEnabled: false, tabIndex: "",
    animationTime: isReduced ? 0.01 : 0.25, springStiffness: 8, zoomPerScroll: 1.25, zoomPerClick: 2,
    minZoomImageRatio: 0.5, maxZoomPixelRatio: 40, visibilityRatio: 0.4, constrainDuringPan: true,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    gestureSettingsPen: { clickToZoom: false, dblClickToZoom: true },
    gestureSettingsTouch: { flickEnabled: !isReduced },
  };
}
