// A table whose rows can be searched, and selected by mouse or keyboard; long ones have pages,
// which the kernel makes.

function render({ model, el }) {
  el.classList.add('wb-rows');
  const search = document.createElement('input');
  search.type = 'search';
  search.className = 'wb-search';
  const count = document.createElement('span');
  count.className = 'wb-count';
  const bar = document.createElement('div');
  bar.className = 'wb-rows-bar';
  const turn = (text, label, by) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'wb-page';
    button.textContent = text;
    button.setAttribute('aria-label', label);
    button.addEventListener('click', () => {
      model.set('page', model.get('page') + by);
      model.save_changes();
    });
    return button;
  };
  const back = turn('‹', 'Page before', -1);
  const next = turn('›', 'Next page', 1);
  bar.append(search, count, back, next);
  const place = document.createElement('div');
  place.className = 'wb-scroll';
  el.append(bar, place);

  const rows = () => [...place.querySelectorAll('tbody tr')];
  const mark = () => {
    const chosen = new Set(model.get('selected'));
    for (const row of rows()) {
      const is = chosen.has(row.dataset.id);
      row.classList.toggle('wb-selected', is);
      if (row.dataset.id) {
        row.setAttribute('aria-selected', String(is));
      }
    }
  };
  const isLong = () => model.get('count') !== '';
  let asked;
  let sorted;
  const filter = () => {
    if (isLong()) {
      count.textContent = model.get('count');
      return;
    }
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows()) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = words.length ? `${shown} of ${rows().length}` : '';
  };
  const draw = () => {
    place.innerHTML = model.get('html'); // escaped by whoever made it
    place.style.maxHeight = model.get('height');
    search.hidden = !model.get('searchable');
    bar.hidden = search.hidden && !isLong();
    back.hidden = next.hidden = !isLong();
    back.disabled = model.get('page') <= 0;
    next.disabled = model.get('page') >= model.get('pages') - 1;
    search.setAttribute('aria-label', model.get('label'));
    search.placeholder = model.get('label');
    for (const row of rows()) {
      if (row.dataset.id) {
        row.tabIndex = 0;
      }
    }
    // Without rows to go through the keyboard reaches the place itself, which then scrolls.
    place.tabIndex = rows().some(row => row.dataset.id) ? -1 : 0;
    mark();
    filter();
    if (sorted !== undefined) {
      place.querySelector(`[data-column="${sorted}"]`)?.focus();
      sorted = undefined;
    }
  };
  const choose = (row, adds) => {
    const id = row?.dataset.id;
    if (!id) {
      return;
    }
    const chosen = model.get('selected');
    const next = chosen.includes(id)
      ? chosen.filter(other => other !== id)
      : adds ? [...chosen, id] : [id];
    model.set('selected', next);
    model.save_changes();
  };
  place.addEventListener('click', event => {
    const column = event.target.closest('[data-column]')?.dataset.column;
    if (column !== undefined) {
      const same = model.get('sorted_by') === Number(column);
      const down = model.get('descending');
      sorted = column; // the heads are made anew, and the keyboard stays where it was
      model.set('sorted_by', same && down ? -1 : Number(column));
      model.set('descending', same && !down);
      model.save_changes();
      return;
    }
    choose(event.target.closest('tr'), event.ctrlKey || event.metaKey || event.shiftKey);
  });
  place.addEventListener('keydown', event => {
    if (event.target.closest('[data-column]')) {
      event.stopPropagation(); // a button, whose keys are the browser's
      return;
    }
    const row = event.target.closest('tr');
    if (!row) {
      return; // the browser's own keys, which scroll
    }
    if (event.key === ' ' || event.key === 'Enter') {
      event.preventDefault();
      event.stopPropagation();
      choose(row, true);
    } else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      const all = rows().filter(other => !other.hidden);
      const other = all[all.indexOf(row) + (event.key === 'ArrowDown' ? 1 : -1)];
      if (other) {
        event.preventDefault();
        event.stopPropagation();
        other.focus();
      }
    }
  });
  search.addEventListener('input', () => {
    clearTimeout(asked);
    if (!isLong()) {
      filter();
      return;
    }
    asked = setTimeout(() => {
      model.set('query', search.value);
      model.save_changes();
    }, 200);
  });
  search.addEventListener('keydown', event => event.stopPropagation());
  model.on('change:html change:count change:page change:pages', draw);
  model.on('change:selected', mark);
  draw();
  return () => {
    clearTimeout(asked);
    model.off('change:html change:count change:page change:pages', draw);
    model.off('change:selected', mark);
  };
}

export default { render };
