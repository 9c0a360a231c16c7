// Modules are named by where they lie in this folder: numbers would depend on where the folder is,
// and the same source must give the same bytes everywhere.
module.exports = {optimization: {moduleIds: 'named', chunkIds: 'named'}};
