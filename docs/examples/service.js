// A service behind msl-hsm, with Node: node service.js [PORT]
const http = require('node:http');

const server = http.createServer((request, response) => {
  const device = decodeURIComponent(request.headers['msl-entity']);
  let size = 0;
  request.on('data', (piece) => { size += piece.length; });
  request.on('end', () => {
    response.setHeader('Content-Type', 'text/plain; charset=utf-8');
    response.end(`${device} sent ${size} bytes\n`);
  });
});

server.listen(Number(process.argv[2] ?? 3000), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}/`);
});
