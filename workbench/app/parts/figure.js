// Shows a plotly figure whose own JavaScript (5 MB) comes from the kernel when it is needed, once
// per page, and is never a part of the widget's saved state.

const PATIENCE_MS = 20000;
const CLEAN_AFTER_MS = 3000;
const shared = (globalThis.__compressionWorkbench ??= {});

function askKernel(model) {
  return new Promise(resolve => {
    const heard = content => {
      if (content?.type === 'fresh') {
        model.off('msg:custom', heard);
        resolve();
      }
    };
    model.on('msg:custom', heard);
    shared.plotly ??= new Promise(found => {
      shared.found = widget => {
        shared.loaded = true;
        found(widget);
      };
    });
    // Asked for once, and again where a kernel was restarted before it answered.
    const needed = !shared.loaded && Date.now() - (shared.asked ?? 0) > PATIENCE_MS;
    if (needed) {
      shared.asked = Date.now();
    }
    model.send({ type: 'show', needed });
  });
}

export default {
  initialize() {},
  async render({ model, el }) {
    el.classList.add('wb-figure');
    el.innerHTML = '<div class="wb-loading" role="status">Drawing …</div>';
    const late = setTimeout(() => {
      el.firstChild.textContent = 'The kernel does not answer; run the cell again to see the plot.';
    }, PATIENCE_MS);
    await askKernel(model);
    const widget = (await shared.plotly)();
    clearTimeout(late);
    el.innerHTML = '';
    // Plotly forgets its height when it is resized, and takes that of the place it is in.
    el.style.height = `${model.get('_widget_layout')?.height ?? 430}px`;
    widget.initialize({ model });
    const clean = widget.render({ model, el });
    const forget = byKeyboard(el);
    let width = 0;
    const observer = new ResizeObserver(() => {
      const now = Math.round(el.getBoundingClientRect().width);
      if (now > 0 && now !== width) {
        width = now;
        globalThis.dispatchEvent(new Event('resize')); // what plotly listens to
      }
    });
    observer.observe(el);
    return () => {
      observer.disconnect();
      forget();
      // Plotly draws in several turns and fails in the next one where it was purged between them.
      setTimeout(() => clean?.(), CLEAN_AFTER_MS);
    };
  }
};
