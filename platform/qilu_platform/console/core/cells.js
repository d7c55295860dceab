// Voronoi cells: which part of the plane lies nearest to which point.

/** For each of `points` its cell as a polygon, within the convex polygon `box`. */
export function cells(points, box) {
  return points.map(([x, y], i) => points.reduce((cell, [otherX, otherY], j) => {
    if (i === j) return cell;
    const [dx, dy] = [otherX - x, otherY - y];
    const middle = (dx * (x + otherX) + dy * (y + otherY)) / 2;
    return cut(cell, (point) => dx * point[0] + dy * point[1] - middle);
  }, box));
}

/** The part of a convex polygon where `side(point)` is at most 0. */
function cut(polygon, side) {
  const kept = [];
  polygon.forEach((point, i) => {
    const next = polygon[(i + 1) % polygon.length];
    const [a, b] = [side(point), side(next)];
    if (a <= 0) kept.push(point);
    if (a * b < 0) kept.push([0, 1].map((axis) => point[axis] + ((next[axis] - point[axis]) * a) / (a - b)));
  });
  return kept;
}
