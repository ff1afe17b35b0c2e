// What the original demo did for each request: look the service up in memory, take the next endpoint, and hand the request
// to http-proxy, which opens a connection for it.
'use strict';

const express = require('express');
const httpProxy = require('http-proxy');

const [port, ...endpoints] = process.argv.slice(2);
const cache = new Map([['bench', { endpoints, next: 0 }]]);
const proxy = httpProxy.createProxyServer({});
const app = express();

app.use((request, response) => {
  const service = cache.get(request.path.split('/')[1]);
  if (!service) {
    response.status(404).send('no such service');
    return;
  }
  const endpoint = service.endpoints[service.next++ % service.endpoints.length];
  proxy.web(request, response, { target: 'http://' + endpoint, xfwd: true }, (error) => {
    response.status(502).end(String(error));
  });
});

const server = app.listen(Number(port), '127.0.0.1', 4096);
server.keepAliveTimeout = 300000;
