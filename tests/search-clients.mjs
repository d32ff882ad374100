// Asks a server for embeddings with the clients of OpenAI and of the Hub for Node.

import assert from "node:assert";
import { createRequire } from "node:module";

const [url, model, packages] = process.argv.slice(2);
const require = createRequire(packages + "/");
const { OpenAI } = require("openai");
const { InferenceClient } = require("@huggingface/inference");
const texts = ["The cat sat on the mat.", "A feline rested on a rug.", "Stock prices fell today."];

const near = (got, want) => {
  assert.equal(got.length, want.length);
  got.forEach((x, place) => assert(Math.abs(x - want[place]) < 1e-5, `${x} ${want[place]}`));
};

const client = new OpenAI({ baseURL: url + "/v1", apiKey: "none", maxRetries: 0 });
// Without a format, the client asks for base64.
const coded = await client.embeddings.create({ model, input: texts });
const floats = await client.embeddings.create({ model, input: texts, encoding_format: "float" });
coded.data.forEach(({ embedding }, place) => near(embedding, floats.data[place].embedding));
assert.deepEqual(coded.usage, floats.usage);
const ids = [101, 1996, 4937, 2938, 2006, 1996, 13523, 1012, 102];
const given = await client.embeddings.create({ model, input: ids });
near(given.data[0].embedding, coded.data[0].embedding);
const few = await client.embeddings.create({ model, input: texts[0], dimensions: 64 });
assert.equal(few.data[0].embedding.length, 64);
await assert.rejects(client.embeddings.create({ model, input: "" }), { status: 400 });

const hub = new InferenceClient("none", { endpointUrl: url });
const vectors = await hub.featureExtraction({ inputs: texts });
vectors.forEach((vector, place) => near(vector, floats.data[place].embedding));
const scores = await hub.sentenceSimilarity({
  inputs: { source_sentence: texts[0], sentences: texts.slice(1) },
});
assert(scores.length === 2 && scores[0] > scores[1] + 0.3, scores);
console.log("clients of Node are well");
