// A load for node_test.py: workers that exchange objects and buffers, compress
// and parse. Prints digests that are the same on every run.
'use strict';
const crypto = require('crypto');
const zlib = require('zlib');
const {Worker, isMainThread, parentPort, workerData} =
    require('worker_threads');

const WORKERS = 8;
const ROUNDS = 60;

function digest(data) {
  return crypto.createHash('sha256').update(data).digest('hex').slice(0, 16);
}

function work(number) {
  const map = new Map();
  const buffers = [];
  let result = '';
  for (let round = 0; round < ROUNDS; ++round) {
    for (let i = 0; i < 500; ++i) {
      map.set(`${number} ${round} ${i}`, {text: 'x'.repeat(i), list: [i, [i]]});
    }
    for (const key of [...map.keys()]) {
      if (key.endsWith('7')) map.delete(key);
    }
    // Memory outside of the script's own heap: malloc's.
    buffers.push(Buffer.alloc(round * 4099 + 1, number + round));
    if (buffers.length > 10) buffers.shift();
    const packed = zlib.deflateSync(Buffer.concat(buffers));
    const text = JSON.stringify([...map].slice(-200));
    result += digest(zlib.inflateSync(packed)) + digest(text);
    JSON.parse(text);
  }
  return digest(result);
}

if (isMainThread) {
  const results = [];
  let running = 0;
  for (let number = 0; number < WORKERS; ++number) {
    ++running;
    const worker = new Worker(__filename, {workerData: number});
    worker.on('message', ({result, bytes}) => {
      results[number] = `${number} ${result} ${digest(Buffer.from(bytes))}`;
    });
    worker.on('error', (error) => { throw error; });
    worker.on('exit', (code) => {
      if (code !== 0) process.exitCode = code;
      if (--running === 0) console.log(results.join('\n'));
    });
  }
} else {
  const result = work(workerData);
  // Handed over, not copied: freed by the thread that gets it.
  const bytes = new Uint8Array(3000000).fill(workerData).buffer;
  zlib.gzip(Buffer.from(result), () => {
    parentPort.postMessage({result, bytes}, [bytes]);
  });
}
