// The points of a figure by keyboard: arrows go from point to point, Enter does what a click does.
// This stands before figure.js, in one module with it.

const KEYS_LABEL =
  'Plot. Arrow keys go from point to point, Enter selects one. The table below has the same.';

function plotIn(el) {
  return el.classList.contains('js-plotly-plot') ? el : el.querySelector('.js-plotly-plot');
}

function pointsIn(el) {
  // Plotly draws with d3, which leaves with every mark what it was drawn from.
  return [...el.querySelectorAll('.scatterlayer .trace path.point')]
    .map(path => {
      const trace = path.closest('.trace').__data__?.[0]?.trace;
      const { x, width, y, height } = path.getBoundingClientRect();
      return { path, trace, place: path.__data__, x: x + width / 2, y: y + height / 2 };
    })
    .filter(point => point.trace?.hoverinfo !== 'skip' && point.place?.i !== undefined)
    .sort((one, other) => one.x - other.x || one.y - other.y);
}

function words({ trace, place }) {
  const text = trace.hovertext?.[place.i] ?? trace.text?.[place.i];
  const plain = text ?? `${place.x}, ${place.y}`;
  const name = trace.name ? `${trace.name}: ` : '';
  const parsed = new DOMParser().parseFromString(String(plain).replaceAll('<br>', ', '), 'text/html');
  return `${name}${parsed.body.textContent}`;
}

function byKeyboard(el) {
  const told = document.createElement('div');
  told.className = 'wb-told';
  told.setAttribute('aria-live', 'polite');
  el.parentElement?.append(told);
  el.tabIndex = 0;
  el.setAttribute('role', 'application');
  el.setAttribute('aria-label', KEYS_LABEL);
  let current = null; // trace and number: what is drawn anew keeps its place

  const unmark = () => {
    el.querySelectorAll('.wb-key-point').forEach(path => path.classList.remove('wb-key-point'));
    el.querySelector('.nsewdrag')?.dispatchEvent(new MouseEvent('mouseout', { bubbles: true }));
  };
  const mark = point => {
    unmark();
    current = { trace: point.trace.index, number: point.place.i };
    point.path.classList.add('wb-key-point');
    told.textContent = words(point);
    // Plotly shows its label where the mouse is.
    const where = { clientX: point.x, clientY: point.y, bubbles: true };
    const ground = el.querySelector('.nsewdrag');
    ground?.dispatchEvent(new MouseEvent('mouseover', where));
    ground?.dispatchEvent(new MouseEvent('mousemove', where));
  };
  const onKey = event => {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    const chooses = event.key === 'Enter' || event.key === ' ';
    if (event.target !== el || (!(event.key in steps) && !chooses)) {
      return;
    }
    const points = pointsIn(el);
    if (!points.length) {
      return; // a heatmap has none; its table below has the same
    }
    event.preventDefault();
    event.stopPropagation(); // the notebook would go to another cell
    const at = points.findIndex(
      ({ trace, place }) => trace.index === current?.trace && place.i === current?.number
    );
    if (chooses) {
      const point = points[at];
      if (point) {
        const { trace, place } = point;
        const clicked = { curveNumber: trace.index, pointNumber: place.i, x: place.x, y: place.y };
        plotIn(el)?.emit('plotly_click', { points: [clicked], event });
      }
    } else {
      mark(points[at < 0 ? 0 : (at + steps[event.key] + points.length) % points.length]);
    }
  };
  el.addEventListener('keydown', onKey);
  el.addEventListener('blur', unmark);
  return () => {
    el.removeEventListener('keydown', onKey);
    el.removeEventListener('blur', unmark);
    told.remove();
  };
}

