// Registers services by the client of the original demo, in Registrator's words. See record.
const { createClient, CreateMode } = require('node-zookeeper-client');

const client = createClient(process.argv[2]);
const body = (name, ip, port, tags, attrs) => JSON.stringify({
  Name: name, IP: ip, PublicPort: port, PrivatePort: 80, ContainerID: '9124853ff0d1', Tags: tags, Attrs: attrs,
});
const nodes = [
  ['service_1/192.168.1.123:49153', body('service_1', '192.168.1.123', 49153, null, null)],
  ['service_1/192.168.1.123:49154', body('service_1', '192.168.1.123', 49154, ['a', 'b,c'], { weight: '5', zone: 'z1' })],
  ['service_1/2001:db8::7:49155', body('service_1', '2001:db8::7', 49155, [], { region: 'eu', scheme: 'https' })],
  // As the demo's own services did it: the name is all there is.
  ['service_2/127.0.0.1:3001', ''],
  ['service_2/127.0.0.1:3002', 'anything'],
];

client.once('connected', () => {
  const next = () => {
    const node = nodes.shift();
    if (!node) return console.log('registered');
    const [path, data] = [`/registrator/${node[0]}`, Buffer.from(node[1])];
    client.mkdirp(path.slice(0, path.lastIndexOf('/')), (error) => {
      if (error) throw error;
      client.create(path, data, CreateMode.EPHEMERAL, (error) => {
        if (error) throw error;
        next();
      });
    });
  };
  next();
});
client.connect();
process.stdin.on('end', () => process.exit()).resume();
