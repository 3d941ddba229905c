/**
 * A client of Lockstep hub datasets: a copy in the browser, or in Node, that works offline.
 *
 * A reference: small, whole, without dependencies. The protocol is described in
 * docs/reference/sync-protocol.md. What is kept goes through `Storage`, one object per copy; write
 * it with IndexedDB, SQLite or a file. One `Copy` is for one tab or process at a time.
 *
 *   const copy = await Copy.open(storage, new HttpTransport(server, () => token, datasetId));
 *   await copy.edit("a1", { set: { title: "Buy milk" } });
 *   await copy.sync();
 *   console.log(copy.get("a1"));
 *
 * Whole numbers beyond 2^53 are rounded by JavaScript: give fields that need them the type
 * `string` with the format `decimal`.
 */

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type Data = { [name: string]: Json };

export interface Operations {
  set?: Data;
  increment?: { [name: string]: number };
  add?: { [name: string]: Json[] };
  remove?: { [name: string]: Json[] };
  delete?: boolean;
}

export interface Mutation extends Operations {
  mid: number;
  id: string;
  hlc: string;
  base_rev?: number;
  base?: Data;
}

interface Stored {
  rev: number;
  data: Data;
  copy: number;
}

/** All that a copy remembers. `Storage.save` keeps it whole or not at all. */
export interface State {
  replica: string;
  token: string;
  copy: number;
  lastMid: number;
  stamp: string;
  records: { [id: string]: Stored };
  queue: Mutation[];
}

export interface Storage {
  load(): Promise<State | undefined>;
  save(state: State): Promise<void>;
}

interface Change {
  id: string;
  rev: number;
  op: "put" | "delete" | "leave";
  data?: Data;
}

interface Page {
  changes: Change[];
  next: string;
  has_more: boolean;
  reset: boolean;
  schema_version: number;
}

interface Outcome {
  mid: number;
  status: "applied" | "merged" | "conflict" | "rejected";
  rev: number | null;
  record?: Data | null;
  message?: string;
  fields?: string[];
}

/** An edit that did not simply get through: tell the user. */
export interface Notice {
  id: string;
  status: Outcome["status"];
  message: string;
  fields: string[];
}

/** What the server refuses. `code` is stable, such as `hub.token_expired`. */
export class Problem extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, detail: string) {
    super(`${status} ${code}: ${detail}`);
    this.status = status;
    this.code = code;
  }
}

export interface Transport {
  get<T>(place: string, query: { [name: string]: string | number | undefined }): Promise<T>;
  post<T>(place: string, body: unknown): Promise<T>;
}

/** Requests about one dataset. */
export class HttpTransport implements Transport {
  private readonly base: string;
  private readonly token: () => string | Promise<string>;

  constructor(server: string, token: () => string | Promise<string>, datasetId: string) {
    this.base = `${server.replace(/\/$/, "")}/api/v1/datasets/${datasetId}`;
    this.token = token;
  }

  get<T>(place: string, query: { [name: string]: string | number | undefined }): Promise<T> {
    const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
    const search = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
    return this.send<T>(`${this.base}/${place}?${search}`, { method: "GET" });
  }

  post<T>(place: string, body: unknown): Promise<T> {
    const headers = { "Content-Type": "application/json" };
    return this.send<T>(`${this.base}/${place}`, {
      method: "POST",
      headers,
      body: JSON.stringify(body),
    });
  }

  /** Calls `changed` after each write, until the returned function is called. */
  listen(changed: () => void): () => void {
    let source: EventSource | undefined;
    let stopped = false;
    const open = async (): Promise<void> => {
      if (stopped) return;
      try {
        const headers = { "Idempotency-Key": crypto.randomUUID() };
        const made = await this.send<{ ticket: string }>(`${this.base}/ticket`, {
          method: "POST",
          headers,
        });
        if (stopped) return;
        source = new EventSource(`${this.base}/stream?ticket=${encodeURIComponent(made.ticket)}`);
        source.addEventListener("change", changed);
        source.onerror = () => {
          source?.close(); // a ticket opens one stream: ask for another
          setTimeout(open, 3000);
        };
      } catch {
        setTimeout(open, 10000);
      }
    };
    void open();
    return () => {
      stopped = true;
      source?.close();
    };
  }

  private async send<T>(url: string, init: RequestInit): Promise<T> {
    const headers = { ...init.headers, Authorization: `Bearer ${await this.token()}` };
    const answer = await fetch(url, { ...init, headers });
    if (answer.ok) return (await answer.json()) as T;
    const body = (await answer.json().catch(() => ({}))) as { code?: string; detail?: string };
    throw new Problem(answer.status, body.code ?? "", body.detail ?? "");
  }
}

const MOST_MUTATIONS = 500;
const PAGE = 1000;

/** A copy of one hub dataset, and the edits that wait to be sent. */
export class Copy {
  readonly notices: Notice[] = [];
  private readonly storage: Storage;
  private readonly transport: Transport;
  private readonly state: State;
  private readonly schemaVersion?: number;

  private constructor(
    storage: Storage,
    transport: Transport,
    state: State,
    schemaVersion?: number,
  ) {
    this.storage = storage;
    this.transport = transport;
    this.state = state;
    this.schemaVersion = schemaVersion;
  }

  static async open(
    storage: Storage,
    transport: Transport,
    schemaVersion?: number,
  ): Promise<Copy> {
    const state = (await storage.load()) ?? {
      replica: crypto.randomUUID(),
      token: "",
      copy: 0,
      lastMid: 0,
      stamp: "0".repeat(16),
      records: {},
      queue: [],
    };
    await storage.save(state);
    return new Copy(storage, transport, state, schemaVersion);
  }

  // What the app sees

  /** The record with the edits that wait; undefined: there is none. */
  get(id: string): Data | undefined {
    let record: Data | undefined = this.state.records[id]?.data;
    for (const mutation of this.waiting(id)) record = applied(record, id, mutation);
    return record;
  }

  /** Of all records that there are. */
  ids(): string[] {
    const known = new Set([
      ...Object.keys(this.state.records),
      ...this.state.queue.map((mutation) => mutation.id),
    ]);
    return [...known].filter((id) => this.get(id) !== undefined).sort();
  }

  // Edits

  /** Queue an edit. Its number. */
  async edit(id: string, operations: Operations): Promise<number> {
    const mutation: Mutation = {
      mid: this.state.lastMid + 1,
      id,
      hlc: this.nextStamp(),
      ...operations,
    };
    const held = this.state.records[id];
    if (held) mutation.base_rev = held.rev;
    const base = this.baseOf(id, Object.keys(operations.set ?? {}));
    if (Object.keys(base).length > 0) mutation.base = base;
    this.state.lastMid = mutation.mid;
    this.state.queue.push(mutation);
    await this.storage.save(this.state);
    return mutation.mid;
  }

  /** Values before the edit of fields that an edit which waits has touched. */
  private baseOf(id: string, names: string[]): Data {
    const touched = new Set<string>();
    for (const { set, increment, add, remove } of this.waiting(id)) {
      for (const part of [set, increment, add, remove]) {
        for (const name of Object.keys(part ?? {})) touched.add(name);
      }
    }
    const record = this.get(id) ?? {};
    const both = names.filter((name) => touched.has(name));
    return Object.fromEntries(both.map((name) => [name, record[name] ?? null]));
  }

  /** A hybrid logical clock: never twice the same, never back. */
  private nextStamp(): string {
    const now = ((BigInt(Date.now()) << 16n).toString(16)).padStart(16, "0");
    const next = (BigInt(`0x${this.state.stamp}`) + 1n).toString(16).padStart(16, "0");
    this.state.stamp = now > next ? now : next;
    return this.state.stamp;
  }

  // Sync

  /** Push all that waits, then pull until the copy is whole. */
  async sync(): Promise<void> {
    while (await this.push());
    while (await this.pull());
  }

  /** Send the first edits that wait; whether more do. The same are sent until answered. */
  async push(): Promise<boolean> {
    const mutations = this.state.queue.slice(0, MOST_MUTATIONS);
    if (mutations.length === 0) return false;
    const body = { replica: this.state.replica, schema_version: this.schemaVersion, mutations };
    const answer = await this.transport.post<{ outcomes: Outcome[] }>("push", body);
    mutations.forEach((mutation, place) => this.settle(mutation, answer.outcomes[place]));
    await this.storage.save(this.state);
    return this.state.queue.length > 0;
  }

  /** Forget an edit that was answered; take what the server has. */
  private settle(mutation: Mutation, outcome: Outcome): void {
    const { id } = mutation;
    this.state.queue = this.state.queue.filter((one) => one.mid !== outcome.mid);
    const held = this.state.records[id];
    const isNews = outcome.rev === null || held === undefined || outcome.rev > held.rev;
    if (outcome.status !== "applied") {
      const { status, message = "", fields = [] } = outcome;
      this.notices.push({ id, status, message, fields });
      if (isNews) this.store(id, outcome.rev, outcome.record ?? undefined);
      return;
    }
    if (isNews) this.store(id, outcome.rev, applied(held?.data, id, mutation));
    // What waits was made on top of the edit that was applied: that is its base now.
    for (const one of this.waiting(id)) one.base_rev = outcome.rev ?? undefined;
  }

  /** Take one page; whether there are more. Begins anew where the token is too old. */
  async pull(): Promise<boolean> {
    const { token, replica } = this.state;
    const query = { since: token, limit: PAGE, replica, schema_version: this.schemaVersion };
    let page: Page;
    try {
      page = await this.transport.get<Page>("changes", query);
    } catch (problem) {
      const isExpired = problem instanceof Problem && problem.code === "hub.token_expired";
      if (!isExpired || token === "") throw problem;
      this.state.token = "";
      await this.storage.save(this.state);
      return true;
    }
    this.take(page);
    await this.storage.save(this.state);
    return page.has_more;
  }

  private take(page: Page): void {
    const { records } = this.state;
    if (page.reset) this.state.copy += 1;
    for (const change of page.changes) {
      const held = records[change.id];
      if (change.op !== "put") delete records[change.id];
      else if (held === undefined || held.rev <= change.rev) {
        this.store(change.id, change.rev, change.data);
      } else held.copy = this.state.copy; // an answer to a push has brought something newer
    }
    if (!page.has_more) {
      for (const [id, held] of Object.entries(records)) {
        if (held.copy < this.state.copy) delete records[id];
      }
    }
    this.state.token = page.next;
  }

  /** Whether the copy is what the server has; undefined: pull first. */
  async isSame(): Promise<boolean | undefined> {
    const said = await this.transport.get<{ count: number; digest: string; up_to_date: boolean }>(
      "digest",
      { since: this.state.token },
    );
    if (!said.up_to_date) return undefined;
    let total = 0n;
    const held = Object.entries(this.state.records);
    for (const [id, { data }] of held) total += await digestOf(id, canonical(data));
    const digest = (total % (1n << 60n)).toString(16).padStart(15, "0");
    return held.length === said.count && digest === said.digest;
  }

  private store(id: string, rev: number | null, data: Data | undefined): void {
    if (rev === null || data === undefined) delete this.state.records[id];
    else this.state.records[id] = { rev, data, copy: this.state.copy };
  }

  private waiting(id: string): Mutation[] {
    return this.state.queue.filter((mutation) => mutation.id === id);
  }
}

/** A record after an edit of one's own. */
export function applied(
  record: Data | undefined,
  id: string,
  mutation: Operations,
): Data | undefined {
  if (mutation.delete) return undefined;
  const after: Data = { ...(record ?? { id }), ...mutation.set };
  for (const [name, delta] of Object.entries(mutation.increment ?? {})) {
    after[name] = Number(after[name] ?? 0) + delta;
  }
  for (const [name, members] of Object.entries(mutation.add ?? {})) {
    const held = listOf(after[name]);
    for (const member of members) if (!contains(held, member)) held.push(member);
    after[name] = held;
  }
  for (const [name, members] of Object.entries(mutation.remove ?? {})) {
    after[name] = listOf(after[name]).filter((member) => !contains(members, member));
  }
  return Object.fromEntries(Object.entries(after).filter(([, value]) => value !== null));
}

function listOf(value: Json | undefined): Json[] {
  return Array.isArray(value) ? [...value] : [];
}

function contains(members: Json[], member: Json): boolean {
  const text = canonical(member);
  return members.some((one) => canonical(one) === text);
}

// Canonical JSON, by which copies are compared

export async function digestOf(id: string, text: string): Promise<bigint> {
  const bytes = new TextEncoder().encode(`${id}\n${text}`);
  const digest = new DataView(await crypto.subtle.digest("SHA-256", bytes));
  return digest.getBigUint64(0) >> 4n;
}

/** Sorted names, no blanks, numbers in plain digits. */
export function canonical(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value === "number") return numberText(value);
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const names = Object.keys(value).sort(byCodePoint);
  return `{${names.map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join(",")}}`;
}

function byCodePoint(one: string, other: string): number {
  const left = [...one];
  const right = [...other];
  for (let place = 0; place < Math.min(left.length, right.length); place += 1) {
    const difference = left[place].codePointAt(0)! - right[place].codePointAt(0)!;
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

function numberText(value: number): string {
  if (value === 0) return "0";
  const sign = value < 0 ? "-" : "";
  const [mantissa, power] = Math.abs(value).toExponential().split("e");
  const digits = mantissa.replace(".", "");
  const first = Number(power); // the power of ten of the first digit
  if (Math.abs(first) > 40) return `${sign}${mantissa}e${first}`;
  if (first < 0) return `${sign}0.${"0".repeat(-first - 1)}${digits}`;
  if (digits.length <= first + 1) return sign + digits + "0".repeat(first + 1 - digits.length);
  return `${sign}${digits.slice(0, first + 1)}.${digits.slice(first + 1)}`;
}
