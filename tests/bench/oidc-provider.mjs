// oidc-provider with open registration and its in-memory adapter, on a free port of 127.0.0.1.
import Provider from 'oidc-provider';

const provider = new Provider('http://127.0.0.1', {
  features: { registration: { enabled: true, initialAccessToken: false } },
});
const server = provider.listen(0, '127.0.0.1', () => {
  console.log(`listening on 127.0.0.1:${server.address().port}`);
});
