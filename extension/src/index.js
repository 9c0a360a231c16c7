// A launcher tile and a command palette entry that open a new notebook with the workbench running.

import { ICommandPalette } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { LabIcon } from '@jupyterlab/ui-components';

const COMMAND = 'compression-workbench:open';
const LABEL = 'Compression Workbench';
const SOURCE = 'import workbench as wb\n\nwb.Workbench()';
const KERNEL_MS = 60000;

// Bars that get shorter under a front: what the workbench draws.
const SVG = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" width="24">
  <g class="jp-icon3" fill="#616161">
    <rect x="3" y="5" width="4" height="16" rx="1"/>
    <rect x="10" y="11" width="4" height="10" rx="1"/>
    <rect x="17" y="16" width="4" height="5" rx="1"/>
  </g>
  <path d="M4 2.5h5.5v5H16v5h5" fill="none" stroke="#0072B2" stroke-width="1.8"
    stroke-dasharray="2.4 1.6"/></svg>`;
const icon = new LabIcon({ name: 'compression-workbench:icon', svgstr: SVG });
// The launcher's notebooks have the picture of their kernel, and a letter where there is none.
const picture = `data:image/svg+xml;base64,${btoa(SVG)}`;

function notebook(kernel) {
  return {
    nbformat: 4,
    nbformat_minor: 5,
    metadata: kernel ? { kernelspec: { name: kernel.name, display_name: kernel.display_name } } : {},
    cells: [
      {
        id: 'workbench',
        cell_type: 'code',
        metadata: {},
        execution_count: null,
        outputs: [],
        source: SOURCE
      }
    ]
  };
}

// The default kernel if it is Python, else the first Python there is.
function pythonKernel(kernelspecs) {
  const { specs } = kernelspecs;
  const all = Object.values(specs?.kernelspecs ?? {});
  const found =
    all.find(spec => spec.name === specs.default && spec.language === 'python') ??
    all.find(spec => spec.language === 'python');
  return found && { name: found.name, display_name: found.display_name };
}

// Cells that are run before the kernel is connected are dropped without a word.
function whenConnected(sessionContext) {
  const isReady = () => {
    const kernel = sessionContext.session?.kernel;
    return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
  };
  return new Promise(resolve => {
    const started = Date.now();
    const look = () => {
      if (isReady()) {
        resolve(true);
      } else if (Date.now() - started > KERNEL_MS) {
        resolve(false);
      } else {
        setTimeout(look, 100);
      }
    };
    look();
  });
}

async function open(app, cwd) {
  const { contents, kernelspecs } = app.serviceManager;
  await kernelspecs.ready;
  const kernel = pythonKernel(kernelspecs);
  const model = await contents.newUntitled({ path: cwd, type: 'notebook' });
  await contents.save(model.path, {
    type: 'notebook',
    format: 'json',
    content: notebook(kernel)
  });
  const panel = await app.commands.execute('docmanager:open', {
    path: model.path,
    factory: 'Notebook',
    kernel: kernel && { name: kernel.name }
  });
  await panel.context.ready;
  await panel.sessionContext.ready;
  if (await whenConnected(panel.sessionContext)) {
    app.shell.activateById(panel.id);
    await app.commands.execute('notebook:run-all-cells');
  }
  return panel;
}

const plugin = {
  id: 'compression-workbench:plugin',
  description: 'Opens a new notebook with the Compression Workbench running.',
  autoStart: true,
  optional: [ILauncher, ICommandPalette],
  activate: (app, launcher, palette) => {
    app.commands.addCommand(COMMAND, {
      label: args => (args.isPalette ? `New ${LABEL}` : LABEL),
      caption: 'Make a language model smaller: a new notebook with the workbench running',
      icon: args => (args.isPalette ? undefined : icon),
      execute: args => open(app, args.cwd || '')
    });
    launcher?.add({ command: COMMAND, category: 'Notebook', rank: 1, kernelIconUrl: picture });
    palette?.addItem({ command: COMMAND, category: 'Notebook', args: { isPalette: true } });
  }
};

export default plugin;
