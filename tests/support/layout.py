"""What is wrong with the layout of a page, as JavaScript finds it."""

WIDTHS = {360: 740, 390: 844, 768: 1024, 1024: 768, 1280: 900, 1400: 900, 1920: 1080}
"""Width of a screen -> its height."""
PROBLEMS = """(() => {
  const problems = [], width = document.documentElement.clientWidth, boxes = [];
  const isShown = (it) => it.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const name = (it) => (it.nodeType === 3 ? it.textContent.trim().slice(0, 30) : it.id || it.className || it.tagName);
  const whole = document.documentElement.scrollWidth;
  if (whole > width) problems.push(`it is ${whole} pixels wide`);
  const visible = (box, it) => {
    for (let outer = it.parentElement; outer; outer = outer.parentElement) {
      if (getComputedStyle(outer).overflow === "visible") continue;
      const edge = outer.getBoundingClientRect();
      return { left: Math.max(box.left, edge.left), right: Math.min(box.right, edge.right),
        top: Math.max(box.top, edge.top), bottom: Math.min(box.bottom, edge.bottom) };
    }
    return box;
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const it = texts.currentNode;
    if (!it.textContent.trim() || !isShown(it.parentElement)) continue;
    if (it.parentElement.closest(".stage, .shapes, option, noscript, script")) continue;
    const range = document.createRange();
    range.selectNodeContents(it);
    for (const box of range.getClientRects()) boxes.push([visible(box, it), it]);
  }
  for (const it of document.querySelectorAll("input, button, select, .stage, .chart, #verdict > .shape, #stage, img")) {
    if (isShown(it)) boxes.push([it.getBoundingClientRect(), it]);
  }
  const real = boxes.filter(([box]) => box.right > box.left && box.bottom > box.top);
  for (const [box, it] of real) if (box.left < -1 || box.right > width + 1) problems.push(`${name(it)} is outside`);
  real.forEach(([one, first], place) => real.slice(place + 1).forEach(([other, second]) => {
    if (first === second || first.contains(second) || second.contains(first)) return;
    const across = Math.min(one.right, other.right) - Math.max(one.left, other.left);
    const down = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
    if (across > 1.5 && down > 4) problems.push(`${name(first)} overlaps ${name(second)}`);
  }));
  return problems.slice(0, 8);
})()"""
WITHOUT_NAME = """[...document.querySelectorAll("input, button, select, img, canvas, svg[role=img]")]
  .filter((it) => it.checkVisibility() && !it.closest("[aria-hidden=true]"))
  .filter((it) => !(it.labels?.length || it.ariaLabel || it.alt || it.title || it.textContent.trim()
    || it.getAttribute("aria-labelledby")))
  .map((it) => it.id || it.outerHTML.slice(0, 80))"""
