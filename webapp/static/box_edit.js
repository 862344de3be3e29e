// Moving and resizing one box x0, y0, x1, y1 in pixels. No DOM in here.
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// What a press at a point takes hold of, within `reach` pixels: some sides of the box, all of them inside it, or null outside.
export function gripAt([x0, y0, x1, y1], [x, y], reach) {
  if (x < x0 - reach || x > x1 + reach || y < y0 - reach || y > y1 + reach) return null;
  // A small box can still be moved: the inner third of each side is no edge.
  const [inX, inY] = [Math.min(reach, (x1 - x0) / 3), Math.min(reach, (y1 - y0) / 3)];
  const grip = [x < x0 + inX, y < y0 + inY, x > x1 - inX, y > y1 - inY];
  return grip.some(Boolean) ? grip : [true, true, true, true];
}

// The box after its held sides were dragged by right, down: in the image, and no side shorter than `least`.
export function dragged([x0, y0, x1, y1], [left, top, right, bottom], [dx, dy], { width, height }, least) {
  if (left && top && right && bottom) {
    const [moveX, moveY] = [clamp(dx, -x0, width - x1), clamp(dy, -y0, height - y1)];
    return [x0 + moveX, y0 + moveY, x1 + moveX, y1 + moveY];
  }
  return [
    left ? clamp(x0 + dx, 0, x1 - least) : x0, top ? clamp(y0 + dy, 0, y1 - least) : y0,
    right ? clamp(x1 + dx, x0 + least, width) : x1, bottom ? clamp(y1 + dy, y0 + least, height) : y1,
  ];
}
