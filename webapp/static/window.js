// Window and level of an 8-bit radiograph: which greys become black and white.
const WHOLE = { width: 256, level: 128, invert: false };
const PRESETS = {
  default: WHOLE, bone: { width: 140, level: 170 }, soft: { width: 140, level: 80 }, high: { width: 96, level: 128 },
  flat: { width: 400, level: 128 },
};
const MOST_WIDTH = 1024;

export class Windowing {
  constructor(part, picture, key) {
    Object.assign(this, { part, picture, values: { ...WHOLE }, listeners: [], isHeld: false });
    this.name = `window-${key}`;
    part("filter").id = this.name;
    this.#wire(key);
    this.#show();
  }

  on(listener) { this.listeners.push(listener); }

  set(values, isUserAction = true) {
    const { width, level, invert } = { ...this.values, ...values };
    this.values = { width: clamp(Math.round(width), 2, MOST_WIDTH), level: clamp(Math.round(level), -128, 384), invert };
    this.#show();
    if (isUserAction) for (const listener of this.listeners) listener(this.values);
  }

  // A drag to the right widens, a drag upwards brightens.
  drag(right_px, down_px) { this.set({ width: this.values.width + right_px, level: this.values.level + down_px }); }

  invert() { this.set({ invert: !this.values.invert }); }

  reset() { this.set(WHOLE); }

  // While held, the image is shown without windowing.
  hold(isHeld) {
    this.isHeld = isHeld;
    this.#show();
  }

  #wire(key) {
    const { part } = this;
    for (const name of ["width", "level"]) {
      const input = part(`window-${name}`);
      input.id = `${name}-${key}`;
      part(`window-${name}-label`).htmlFor = input.id;
      input.addEventListener("change", () => {
        if (Number.isFinite(input.valueAsNumber)) this.set({ [name]: input.valueAsNumber }); else this.#show();
      });
    }
    part("preset").id = `preset-${key}`;
    part("preset-label").htmlFor = part("preset").id;
    part("preset").addEventListener("change", () => this.set(PRESETS[part("preset").value] ?? {}));
    part("invert").addEventListener("click", () => this.invert());
    part("window-reset").addEventListener("click", () => this.reset());
  }

  #show() {
    const { part, values: { width, level, invert } } = this;
    part("window-width").value = width;
    part("window-level").value = level;
    part("preset").value = Object.keys(PRESETS).find((name) => isSame(PRESETS[name], this.values)) ?? "custom";
    part("invert").setAttribute("aria-pressed", String(invert));
    const { slope, intercept } = this.isHeld ? { slope: 1, intercept: 0 } : line(this.values);
    for (const channel of part("filter").querySelectorAll("feFuncR, feFuncG, feFuncB")) {
      channel.setAttribute("slope", slope);
      channel.setAttribute("intercept", intercept);
    }
    part("window-readout").textContent = `W ${width}  L ${level}${invert ? "  inverted" : ""}`;
    this.picture.setFilter(slope === 1 && intercept === 0 ? "none" : `url("#${this.name}")`);
  }
}

// DICOM PS3.3 C.11.2.1.2.1, for greys 0..255 shown as 0..1.
function line({ width, level, invert }) {
  const slope = 255 / (width - 1);
  const intercept = 0.5 - (level - 0.5) / (width - 1);
  return invert ? { slope: -slope, intercept: 1 - intercept } : { slope, intercept };
}

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);
const isSame = (preset, values) => preset.width === values.width && preset.level === values.level;
