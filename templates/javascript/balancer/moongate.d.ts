// What wit/moongate.wit gives a plugin, for editors and `tsc`. The build does not read it.
//
// A `u64` is a number here, exact up to 2 ** 53: of `random` and of a hash the lowest bits are lost.

/** `ip:port`; a weight from 0 to 65535; the zone, empty if unknown; and what else the registry says. */
interface Endpoint {
  address: string;
  weight: number;
  zone: string;
  labels: [name: string, value: string][];
}

/** What a filter decides. */
type Verdict =
  | { tag: "next" }
  | { tag: "respond"; val: { status: number; headers: [name: string, value: string][]; body: Uint8Array } };

declare module "moongate:plugin/host@0.1.0" {
  const host: {
    log(level: "trace" | "debug" | "info" | "warn" | "error", message: string): void;
    /** Monotonic nanoseconds since the gateway started. */
    now(): number;
    /** Milliseconds since 1970. */
    unixMs(): number;
    random(): number;
    zone(): string;
  };
  export default host;
}

declare module "moongate:plugin/shared@0.1.0" {
  /** Numbers of a binding that all workers share and that outlive versions. `open` only in `configure`. */
  const shared: {
    open(name: string): number;
    get(slot: number): number;
    set(slot: number, value: number): void;
    fetchAdd(slot: number, delta: number): number;
    compareExchange(slot: number, expected: number, replacement: number): number;
  };
  export default shared;
}

declare module "moongate:plugin/endpoints@0.1.0" {
  /** By index into the list given to `update`; only in `pick`. */
  const endpoints: {
    count(): number;
    inflight(index: number): number;
    latencyUs(index: number): number;
    peakUs(index: number): number;
    /** Share of requests that failed, in thousandths. */
    failures(index: number): number;
    /** True if this request already failed there. */
    tried(index: number): boolean;
    inflightAll(): number[];
  };
  export default endpoints;
}

declare module "moongate:plugin/request-keys@0.1.0" {
  type Source =
    | { tag: "path" | "method" | "authority" | "client-address" }
    | { tag: "header" | "cookie" | "query"; val: string };
  /** `declare` only in `configure`, the others only in `pick`. */
  const requestKeys: {
    declare(source: Source): number;
    hash(key: number): number;
    text(key: number): string | null;
  };
  export default requestKeys;
}

declare module "moongate:plugin/request@0.1.0" {
  /** The request in hand. Writers return false, and do nothing, for what HTTP or the gateway does not allow. */
  const request: {
    method(): string;
    path(): string;
    originalPath(): string;
    authority(): string;
    clientAddress(): string;
    get(name: string): string | null;
    headers(): [name: string, value: string][];
    set(name: string, value: string): boolean;
    append(name: string, value: string): boolean;
    remove(name: string): boolean;
    setPath(path: string): boolean;
    setMethod(method: string): boolean;
    noted(): Uint8Array;
    note(value: Uint8Array): boolean;
  };
  export default request;
}

declare module "moongate:plugin/response@0.1.0" {
  /** The response in hand; only in `onResponse`. */
  const response: {
    status(): number;
    setStatus(status: number): boolean;
    get(name: string): string | null;
    headers(): [name: string, value: string][];
    set(name: string, value: string): boolean;
    append(name: string, value: string): boolean;
    remove(name: string): boolean;
    endpoint(): string;
  };
  export default response;
}
