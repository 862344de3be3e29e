// Window and level: which samples of a radiograph become black and white, whatever its depth.
const DRAG_PX = 255; // a drag of so many pixels changes width or level by the whole default window

export class Windowing {
  // `image` has `bits`, and as `window` the samples [low, high] that are black and white at first.
  constructor(part, picture, key, { bits, window: [low, high] }) {
    Object.assign(this, { part, picture, low, span: high - low, range: 2 ** bits, listeners: [], isHeld: false });
    this.presets = presetsOf(low, high, bits);
    this.values = { ...this.presets.default };
    this.name = `window-${key}`;
    part("filter").id = this.name;
    this.#wire(key);
    this.#show();
  }

  on(listener) { this.listeners.push(listener); }

  set(values, isUserAction = true) {
    const { width, level, invert } = { ...this.values, ...values };
    const { range } = this;
    this.values = {
      width: clamp(Math.round(width), 2, 4 * range), level: clamp(Math.round(level), -range / 2, 1.5 * range), invert,
    };
    this.#show();
    if (isUserAction) for (const listener of this.listeners) listener(this);
  }

  // The window of another radiograph, in shares of its default window, since its samples may have another depth.
  follow({ values: { width, level, invert }, low, span }) {
    this.set({ width: (width / span) * this.span, level: this.low + ((level - low) / span) * this.span, invert }, false);
  }

  // A drag to the right widens, a drag upwards brightens.
  drag(right_px, down_px) {
    const step = this.span / DRAG_PX;
    this.set({ width: this.values.width + step * right_px, level: this.values.level + step * down_px });
  }

  invert() { this.set({ invert: !this.values.invert }); }

  reset() { this.set(this.presets.default); }

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
    part("window-width").max = 4 * this.range;
    [part("window-level").min, part("window-level").max] = [-this.range / 2, 1.5 * this.range];
    part("preset").id = `preset-${key}`;
    part("preset-label").htmlFor = part("preset").id;
    for (const option of [...part("preset").options]) if (!(option.value in this.presets || option.disabled)) option.remove();
    part("preset").addEventListener("change", () => this.set(this.presets[part("preset").value] ?? {}));
    part("invert").addEventListener("click", () => this.invert());
    part("window-reset").addEventListener("click", () => this.reset());
  }

  #show() {
    const { part, presets, values: { width, level, invert } } = this;
    part("window-width").value = width;
    part("window-level").value = level;
    part("preset").value = Object.keys(presets).find((name) => isSame(presets[name], this.values)) ?? "custom";
    part("invert").setAttribute("aria-pressed", String(invert));
    const { slope, intercept } = this.isHeld ? { slope: 1, intercept: 0 } : this.#line();
    for (const channel of part("filter").querySelectorAll("feFuncR, feFuncG, feFuncB")) {
      channel.setAttribute("slope", slope);
      channel.setAttribute("intercept", intercept);
    }
    part("window-readout").textContent = `W ${width}  L ${level}${invert ? "  inverted" : ""}`;
    this.picture.setGreys({ filter: slope === 1 && intercept === 0 ? "none" : `url("#${this.name}")`, slope, intercept });
  }

  // DICOM PS3.3 C.11.2.1.2.1, for the shares 0..1 of the default window shown as greys 0..1.
  #line() {
    const { low, span, values: { width, level, invert } } = this;
    const slope = span / (width - 1);
    const intercept = 0.5 + (low - (level - 0.5)) / (width - 1);
    return invert ? { slope: -slope, intercept: 1 - intercept } : { slope, intercept };
  }
}

// In shares of the default window, so that they mean the same at any depth; "full" is of deep radiographs only.
function presetsOf(low, high, bits) {
  const span = high - low;
  const share = (width, level) => ({ width: Math.round((width * span) / 255), level: Math.round(low + (level * span) / 255) });
  const whole = { width: Math.round(span + 1), level: Math.round((low + high + 1) / 2), invert: false };
  return {
    default: whole, bone: share(140, 170), soft: share(140, 80), high: share(96, 128), flat: share(400, 128),
    inverted: { ...whole, invert: true },
    ...(bits > 8 ? { full: { width: 2 ** bits, level: 2 ** (bits - 1) } } : {}),
  };
}

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);
const isSame = (preset, values) => preset.width === values.width && preset.level === values.level
  && (preset.invert ?? values.invert) === values.invert;
