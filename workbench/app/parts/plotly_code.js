// Hands plotly's JavaScript to the figures on this page, and says so, so that it can be closed.

async function handOver(model) {
  const packed = new Blob([model.get('code')]).stream();
  const text = await new Response(packed.pipeThrough(new DecompressionStream('gzip'))).text();
  const url = URL.createObjectURL(new Blob([text], { type: 'text/javascript' }));
  const module = await import(/* webpackIgnore: true */ url);
  URL.revokeObjectURL(url);
  globalThis.__compressionWorkbench?.found?.(module.default);
  model.send({ type: 'done' });
}

export default {
  // anywidget gives up on a model that is not initialized within two seconds: 5 MB take longer.
  initialize({ model }) {
    handOver(model);
  }
};
