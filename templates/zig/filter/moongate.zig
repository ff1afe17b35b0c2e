//! The plugin interface of Moongate (wit/moongate.wit) in Zig, written by hand: what a balancer or a header filter
//! exports and what it may call. What each function means stands in the WIT.
//!
//! Types are laid out as the canonical ABI of the component model says (CanonicalABI.md, "Alignment", "Flattening"): a
//! string is pointer and length, an option a byte and what follows it, and what does not fit one number is returned
//! through a last pointer. In `zig test` there is no gateway: `fake` answers instead.
const std = @import("std");
const builtin = @import("builtin");

/// For what outlives a call: the states of bindings.
pub const gpa = if (builtin.is_test) std.heap.page_allocator else std.heap.wasm_allocator;

/// What the gateway passes lies here, and there is room for more. All of it is gone with the next call.
pub fn scratch() std.mem.Allocator {
    return arena.allocator();
}
var arena = std.heap.ArenaAllocator.init(gpa);

/// "No opinion": the gateway picks, round robin.
pub const no_opinion: u32 = std.math.maxInt(u32);

pub const String = extern struct {
    ptr: [*]const u8,
    len: usize,

    pub fn of(bytes: []const u8) String {
        return .{ .ptr = bytes.ptr, .len = bytes.len };
    }
    pub fn text(self: String) []const u8 {
        return if (self.len == 0) "" else self.ptr[0..self.len]; // an empty one has no pointer
    }
};

fn List(comptime T: type) type {
    return extern struct {
        ptr: [*]const T,
        len: usize,

        pub fn items(self: @This()) []const T {
            return if (self.len == 0) &.{} else self.ptr[0..self.len];
        }
    };
}

pub const Header = extern struct { name: String, value: String };
pub const Endpoint = extern struct { address: String, weight: u32, zone: String, labels: List(Header) };

/// An answer of a filter's own: a status of 200 to 599, and at most 1 MiB.
pub const Reply = struct { status: u16, headers: []const Header = &.{}, body: []const u8 = "" };
/// What a filter decides. `respond`: the endpoint (or its response) is left out.
pub const Verdict = union(enum) { next, respond: Reply };

/// An error for the operator, kept until the next one; longer than its room it loses its end.
pub fn mistake(comptime format: []const u8, args: anytype) []const u8 {
    const room = struct {
        var bytes: [512]u8 = undefined;
    };
    return std.fmt.bufPrint(&room.bytes, format, args) catch &room.bytes;
}

/// Live figures of the endpoints, by index; only in `pick`.
pub const endpoints = struct {
    pub fn inflight(index: u32) u32 {
        return if (builtin.is_test) fake.inflight[index] else import.endpoints.inflight(index);
    }
    pub fn latencyUs(index: u32) u32 {
        return if (builtin.is_test) fake.latency_us[index] else import.endpoints.@"latency-us"(index);
    }
    pub fn tried(index: u32) bool {
        return if (builtin.is_test) fake.tried[index] else import.endpoints.tried(index) != 0;
    }
};

/// The request in hand.
pub const request = struct {
    /// Path and query.
    pub fn path() []const u8 {
        if (builtin.is_test) return fake.path;
        var result: String = undefined;
        import.request.path(&result);
        return result.text();
    }
    /// False, and nothing changes, for what HTTP or the gateway does not allow.
    pub fn set(name: []const u8, value: []const u8) bool {
        if (builtin.is_test) {
            fake.on_request = .{ name, value };
            return true;
        }
        return import.request.set(name.ptr, name.len, value.ptr, value.len) != 0;
    }
};

/// The response in hand; only in `onResponse`.
pub const response = struct {
    /// As `request.set`.
    pub fn set(name: []const u8, value: []const u8) bool {
        if (builtin.is_test) {
            fake.on_response = .{ name, value };
            return true;
        }
        return import.response.set(name.ptr, name.len, value.ptr, value.len) != 0;
    }
};

/// What a test says that the gateway would answer, and what was written there.
pub var fake: struct {
    inflight: []const u32 = &.{},
    latency_us: []const u32 = &.{},
    tried: []const bool = &.{},
    path: []const u8 = "/",
    on_request: [2][]const u8 = .{ "", "" },
    on_response: [2][]const u8 = .{ "", "" },
} = .{};

/// More of them can be added as they are needed: the names are those of the WIT.
const import = struct {
    const endpoints = struct {
        extern "moongate:plugin/endpoints@0.1.0" fn inflight(index: u32) u32;
        extern "moongate:plugin/endpoints@0.1.0" fn @"latency-us"(index: u32) u32;
        extern "moongate:plugin/endpoints@0.1.0" fn tried(index: u32) u32;
    };
    const request = struct {
        extern "moongate:plugin/request@0.1.0" fn path(result: *String) void;
        extern "moongate:plugin/request@0.1.0" fn set(name: [*]const u8, name_len: usize, value: [*]const u8, value_len: usize) u32;
    };
    const response = struct {
        extern "moongate:plugin/response@0.1.0" fn set(name: [*]const u8, name_len: usize, value: [*]const u8, value_len: usize) u32;
    };
};

/// Exports `configure`, `update` and `pick` of a file.
pub fn exportBalancer(comptime Plugin: type) void {
    const balancer = struct {
        fn update(binding: u32, ptr: [*]const Endpoint, len: usize) callconv(.c) *const Result {
            const list = List(Endpoint){ .ptr = ptr, .len = len };
            return answer(Plugin.update(binding, list.items()));
        }
        fn pick(binding: u32, sequence: u64, random: u64, attempt: u32) callconv(.c) u32 {
            return Plugin.pick(binding, sequence, random, attempt);
        }
    };
    exportConfigurable(Plugin);
    @"export"(&balancer.update, "moongate:plugin/balancer@0.1.0#update");
    @"export"(&balancer.pick, "moongate:plugin/balancer@0.1.0#pick");
}

/// Exports `configure`, `onRequest` and `onResponse` of a file.
pub fn exportFilter(comptime Plugin: type) void {
    const filter = struct {
        fn onRequest(binding: u32) callconv(.c) *const Decision {
            _ = arena.reset(.retain_capacity);
            return decided(Plugin.onRequest(binding));
        }
        fn onResponse(binding: u32) callconv(.c) *const Decision {
            _ = arena.reset(.retain_capacity);
            return decided(Plugin.onResponse(binding));
        }
    };
    exportConfigurable(Plugin);
    @"export"(&filter.onRequest, "moongate:plugin/request-filter@0.1.0#on-request");
    @"export"(&filter.onResponse, "moongate:plugin/response-filter@0.1.0#on-response");
}

fn exportConfigurable(comptime Plugin: type) void {
    const configurable = struct {
        fn configure(binding: u32, ptr: [*]const u8, len: usize) callconv(.c) *const Result {
            return answer(Plugin.configure(binding, (String{ .ptr = ptr, .len = len }).text()));
        }
    };
    @"export"(&configurable.configure, "moongate:plugin/configurable@0.1.0#configure");
    @"export"(&realloc, "cabi_realloc");
}

fn @"export"(comptime function: anytype, comptime name: []const u8) void {
    if (!builtin.is_test) @export(function, .{ .name = name });
}

/// Where the gateway puts what it passes: ahead of the call that it is for.
fn realloc(old: [*]u8, old_len: usize, alignment: usize, len: usize) callconv(.c) [*]u8 {
    const new = scratch().rawAlloc(len, .fromByteUnits(alignment), @returnAddress()) orelse @trap();
    @memcpy(new[0..@min(old_len, len)], old[0..@min(old_len, len)]);
    return new;
}

/// result<_, string>
const Result = extern struct { is_error: bool, message: String };

fn answer(message: ?[]const u8) *const Result {
    const area = struct {
        var result: Result = undefined;
    };
    _ = arena.reset(.retain_capacity);
    area.result = .{ .is_error = message != null, .message = .of(message orelse "") };
    return &area.result;
}

/// variant verdict { next, respond(reply) }
const Decision = extern struct {
    respond: bool,
    reply: extern struct { status: u16, headers: List(Header), body: String },
};

fn decided(verdict: Verdict) *const Decision {
    const area = struct {
        var decision: Decision = undefined;
    };
    const reply: Reply = if (verdict == .respond) verdict.respond else .{ .status = 200 };
    area.decision = .{ .respond = verdict == .respond, .reply = .{
        .status = reply.status,
        .headers = .{ .ptr = reply.headers.ptr, .len = reply.headers.len },
        .body = .of(reply.body),
    } };
    return &area.decision;
}
