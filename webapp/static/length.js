// Lengths on a radiograph, in mm where its file says how large a pixel is. No DOM in here.
const STEPS_MM = [1, 2, 5, 10, 20, 50, 100, 200];

// `line` is [x0, y0, x1, y1] in pixels; `spacing` is [row, column] in mm, the height and width of a pixel, or null.
export function lengthOf([x0, y0, x1, y1], spacing) {
  const [row, column] = spacing ?? [1, 1];
  return Math.hypot((x1 - x0) * column, (y1 - y0) * row);
}

export function lengthText(line, spacing) {
  const length = lengthOf(line, spacing);
  return spacing ? `${length.toFixed(1)} mm` : `${Math.round(length)} px`;
}

export function spacingText(spacing) {
  if (!spacing) return "size of a pixel unknown";
  const [row, column] = spacing.map((side) => Number(side.toPrecision(3)));
  return row === column ? `${row} mm per pixel` : `${column} × ${row} mm per pixel`;
}

// The bar of a round length that is at most `most_px` wide where a pixel is shown `zoom` wide: { width_px, text }, or null.
export function scaleBar(spacing, zoom, most_px) {
  const px_per_mm = spacing ? zoom / spacing[1] : 0;
  const length_mm = STEPS_MM.filter((step) => step * px_per_mm <= most_px).at(-1);
  return px_per_mm && length_mm ? { width_px: length_mm * px_per_mm, text: `${length_mm} mm` } : null;
}
