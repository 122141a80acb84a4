// node dist/retrieve.js HOST:PORT PROTOS FILE [ARCHIVE]: print the cases most similar to a DICOM file.

import { readFileSync } from "node:fs";

import { Dafh } from "./dafh.js";

const [address, protos, file, archive] = process.argv.slice(2);
if (!address || !protos || !file) {
  console.error("usage: retrieve HOST:PORT PROTOS FILE [ARCHIVE]");
  process.exit(2);
}
const client = new Dafh(address, protos);
try {
  const request = { archive, query: { dicom: readFileSync(file) }, topK: 6, pageSize: 4 };
  const pages = [];
  for await (const page of client.pages(request)) {
    pages.push(page.hits.map((hit) => ({ name: hit.case.name, distance: hit.distance })));
  }
  console.log(JSON.stringify(pages));
} catch (error) {
  const { code, details } = error as { code: number; details: string };
  console.error(JSON.stringify({ code, details }));
  process.exitCode = 1;
} finally {
  client.close();
}
