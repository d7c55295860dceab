// A server of node-opcua, which shares no code with our client: signed and encrypted, for one trusted client.
// node node_opcua_server.js PORT PKI_FOLDER TRUSTED_CLIENT.der
const { OPCUAServer } = require("node-opcua-server");
const { OPCUACertificateManager } = require("node-opcua-certificate-manager");
const { MessageSecurityMode, SecurityPolicy } = require("node-opcua-secure-channel");
const { DataType, Variant } = require("node-opcua-variant");
const fs = require("fs");

async function main([port, folder, trusted]) {
  const manager = new OPCUACertificateManager({ rootFolder: folder, automaticallyAcceptUnknownCertificate: false });
  await manager.initialize();
  await manager.trustCertificate(fs.readFileSync(trusted));
  const server = new OPCUAServer({
    port: Number(port),
    serverInfo: { applicationUri: "urn:test:node-opcua" },
    serverCertificateManager: manager,
    securityModes: [MessageSecurityMode.SignAndEncrypt],
    securityPolicies: [SecurityPolicy.Basic256Sha256],
  });
  await server.initialize();
  const space = server.engine.addressSpace;
  const own = space.getOwnNamespace();
  const press = own.addObject({ organizedBy: space.rootFolder.objects, browseName: "Press" });
  for (const name of process.argv.slice(5)) {
    let value = 0;
    const node = own.addVariable({
      componentOf: press, browseName: name, nodeId: `s=Press.${name}`, dataType: "Double",
    });
    setInterval(() => node.setValueFromSource(new Variant({ dataType: DataType.Double, value: ++value })), 200);
  }
  await server.start();
  fs.copyFileSync(server.certificateFile, `${folder}/server-certificate.pem`);
  console.log("listening");
}

main(process.argv.slice(2)).catch((error) => { console.error(error); process.exit(1); });
