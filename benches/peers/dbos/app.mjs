// The DBOS side of `make bench-peers`: a workflow of three steps in sequence, each returning 128 bytes.
//
// A step answers in this process, or asks the HTTP server that STEP_URL names. An HTTP request starts a run and is
// answered when the run's end is recorded. Used by the bench `peers` alone.

import { createServer } from "node:http";
import { DBOS } from "@dbos-inc/dbos-sdk";

const OUTPUT = "x".repeat(128);
const { DATABASE_URL, LISTEN_PORT, STEP_URL } = process.env;

async function step(text) {
  if (!STEP_URL) {
    return OUTPUT;
  }
  const response = await fetch(STEP_URL, { method: "POST", body: text });
  if (!response.ok) {
    throw new Error(`the step's server answered ${response.status}`);
  }
  return await response.text();
}

const three = DBOS.registerWorkflow(
  async (text) => {
    for (const name of ["one", "two", "three"]) {
      const given = text;
      text = await DBOS.runStep(() => step(given), { name });
    }
    return text;
  },
  { name: "three" },
);

// The admin server would listen on every interface.
DBOS.setConfig({ name: "motet-bench", systemDatabaseUrl: DATABASE_URL, runAdminServer: false, logLevel: "warn" });
await DBOS.launch();

const server = createServer(async (request, response) => {
  const answer = (status, body) => {
    const text = JSON.stringify(body);
    response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) });
    response.end(text);
  };
  try {
    const chunks = [];
    for await (const chunk of request) {
      chunks.push(chunk);
    }
    if (request.method === "GET") {
      return answer(200, "ready");
    }
    const { text } = JSON.parse(Buffer.concat(chunks).toString());
    answer(200, { output: await three(text) });
  } catch (error) {
    answer(500, { error: String(error) });
  }
});
// Node would listen on every interface without a host.
server.listen(Number(LISTEN_PORT), "127.0.0.1");
