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

// What a drawing listens to, so that it can be left: plotly's own never lets go.
function listening(model) {
  const heard = [];
  const own = {
    get: name => model.get(name),
    set: (name, value) => model.set(name, value),
    save_changes: () => {
      try {
        model.save_changes();
      } catch (error) { // the kernel closed the figure meanwhile: nobody is left to tell
        if (!String(error).includes('no comm')) {
          throw error;
        }
      }
    },
    on: (name, call) => {
      model.on(name, call);
      heard.push([name, call]);
    }
  };
  return { own, leave: () => heard.forEach(([name, call]) => model.off(name, call)) };
}

function drawn(make, model, el) {
  const place = document.createElement('div');
  place.style.height = '100%';
  // Plotly forgets its height when it is resized, and takes that of the place it is in.
  el.style.height = `${model.get('_widget_layout')?.height ?? 430}px`;
  el.replaceChildren(place);
  const { own, leave } = listening(model);
  const widget = make();
  widget.initialize({ model: own });
  const clean = widget.render({ model: own, el: place });
  return () => {
    leave();
    // Plotly draws in several turns and fails in the next one where it was purged between them.
    setTimeout(() => clean?.(), CLEAN_AFTER_MS);
  };
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
    const make = await shared.plotly;
    clearTimeout(late);
    let forget = drawn(make, model, el);
    // The whole figure comes again where a page was cut off from its kernel and has it back.
    let waits = 0;
    const again = () => {
      clearTimeout(waits);
      waits = setTimeout(() => {
        forget();
        forget = drawn(make, model, el);
      }, 50);
    };
    model.on('change:_widget_data', again);
    const forgetKeys = byKeyboard(el);
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
      clearTimeout(waits);
      model.off('change:_widget_data', again);
      observer.disconnect();
      forgetKeys();
      forget();
    };
  }
};
