// The registration handler of the MCP SDK with clients in memory, on a free port of 127.0.0.1.
import { clientRegistrationHandler } from '@modelcontextprotocol/sdk/server/auth/handlers/register.js';
import express from 'express';

const clients = new Map();
const clientsStore = {
  getClient: (id) => clients.get(id),
  registerClient: (client) => {
    clients.set(client.client_id, client);
    return client;
  },
};
const app = express();
app.disable('x-powered-by');
app.use('/register', clientRegistrationHandler({ clientsStore, rateLimit: false }));
const server = app.listen(0, '127.0.0.1', () => {
  console.log(`listening on 127.0.0.1:${server.address().port}`);
});
