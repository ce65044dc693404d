// A table of records in the browser's database (IndexedDB).

const DATABASE = "resnet-serving";
const TABLE = "images";
const MOST = 200; // records; the oldest are deleted

/** Return all records, the oldest first. */
export function readAll() {
  return run("readonly", (table) => table.getAll());
}

/** Add a record, or replace the one with the same `key`. Returns its key. */
export async function put(record) {
  const key = await run("readwrite", (table) => table.put(record));
  const keys = await run("readonly", (table) => table.getAllKeys());
  if (keys.length > MOST) {
    const oldest = IDBKeyRange.upperBound(keys.at(-MOST), true);
    await run("readwrite", (table) => table.delete(oldest));
  }
  return key;
}

/** Delete a record. */
export function remove(key) {
  return run("readwrite", (table) => table.delete(key));
}

/** Delete all records. */
export function clear() {
  return run("readwrite", (table) => table.clear());
}

async function run(mode, ask) {
  const database = await open();
  try {
    return await settle(ask(database.transaction(TABLE, mode).objectStore(TABLE)));
  } finally {
    database.close(); // once the transaction is complete
  }
}

function open() {
  const request = indexedDB.open(DATABASE, 1);
  request.addEventListener("upgradeneeded", () => {
    request.result.createObjectStore(TABLE, { keyPath: "key", autoIncrement: true });
  });
  return settle(request);
}

function settle(request) {
  return new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(request.error));
  });
}
