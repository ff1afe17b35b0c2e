//! What a guest may get wrong of the canonical ABI, by hand: the call fails, and nothing else, whether the guest is called
//! directly or as a component.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use moongate::config::Kind;
use moongate::message::RequestHead;
use moongate::plugin::engine::Limits;
use moongate::plugin::host::{Exchange, Step};
use moongate::plugin::instance::Verdict;
use moongate::plugin::{Binding, Calling, Engine, Failure, Instances, Numbers, Plugin};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const WIT: &str = include_str!("../../wit/moongate.wit");

/// Memory that an instance may have: 16 pages.
const MEMORY: u64 = 1 << 20;

/// Where there is a verdict that wants nothing: what nobody writes to is zero.
const NEXT: u32 = 64;

/// Where the cases put their verdict.
const VERDICT: u32 = 128;

/// A bump allocator.
const ROOM: &str = "(global.set $next (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.get $next) (global.set $next (i32.add (global.get $next) (local.get $new)))";

/// A filter in text.
struct Guest {
    /// How it makes room.
    room: &'static str,
    /// What it does with a request; where its verdict is.
    call: String,
    /// What it cleans up.
    post: &'static str,
    data: Vec<(u32, Vec<u8>)>,
}

impl Guest {
    fn calling(call: impl Into<String>) -> Guest {
        Guest { room: ROOM, call: call.into(), post: "", data: Vec::new() }
    }

    /// That answers with a record of these words, after the number of the case.
    fn answering(case: u32, reply: [u32; 5]) -> Guest {
        let mut record = vec![case];
        record.extend(reply);
        let record = record.into_iter().flat_map(u32::to_le_bytes).collect();
        Guest { data: vec![(VERDICT, record)], ..Guest::calling(format!("(i32.const {VERDICT})")) }
    }

    fn with(mut self, at: u32, bytes: &[u8]) -> Guest {
        self.data.push((at, bytes.to_vec()));
        self
    }

    fn module(&self, pages: u32) -> Vec<u8> {
        embedded(&self.text(pages), WIT, StringEncoding::UTF8)
    }

    fn text(&self, pages: u32) -> String {
        let Guest { room, call, post, data } = self;
        let escaped = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\{byte:02x}")).collect::<String>();
        let data: String =
            data.iter().map(|(at, bytes)| format!("(data (i32.const {at}) \"{}\")", escaped(bytes))).collect();
        format!(
            r#"(module
                (import "moongate:plugin/request@0.1.0" "set" (func $set (param i32 i32 i32 i32) (result i32)))
                (import "moongate:plugin/request@0.1.0" "get" (func $get (param i32 i32 i32)))
                (import "moongate:plugin/request@0.1.0" "headers" (func $headers (param i32)))
                (import "moongate:plugin/request@0.1.0" "path" (func $path (param i32)))
                (import "moongate:plugin/host@0.1.0" "log" (func $log (param i32 i32 i32)))
                (import "moongate:plugin/host@0.1.0" "now" (func $now (result i64)))
                (memory (export "memory") {pages})
                (global $next (mut i32) (i32.const 4096))
                (func (export "cabi_realloc") (param $old i32) (param $size i32) (param $align i32) (param $new i32)
                    (result i32) {room})
                (func (export "moongate:plugin/configurable@0.1.0#configure") (param i32 i32 i32) (result i32)
                    (i32.const {NEXT}))
                (func $call (export "moongate:plugin/request-filter@0.1.0#on-request") (param i32) (result i32) {call})
                (func (export "cabi_post_moongate:plugin/request-filter@0.1.0#on-request") (param i32) {post})
                {data})"#
        )
    }
}

/// A module of this text, with a component type in it.
fn embedded(text: &str, wit: &str, encoding: StringEncoding) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut resolve = Resolve::default();
    let package = resolve.push_source("moongate.wit", wit).unwrap();
    let world = resolve.select_world(&[package], Some("request-filter-plugin")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, encoding).unwrap();
    module
}

/// How a call ended, without the words of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Next,
    Respond(u16),
    Trap,
    Stop,
    Nonsense,
}

/// What becomes of a request, called in both ways; and then of another one.
fn ends(what: &str, guest: &Guest) -> [End; 2] {
    let mut ends = [[End::Stop; 2]; 2];
    for _ in 0..TRIALS {
        ends = ends_once(what, guest);
        if ends == [[End::Stop; 2]; 2] || !ends.as_flattened().contains(&End::Stop) {
            break;
        }
    }
    assert_eq!(ends[0], ends[1], "{what}: directly, and as a component");
    ends[0]
}

fn ends_once(what: &str, guest: &Guest) -> [[End; 2]; 2] {
    let engine = Engine::new(Limits { memory: MEMORY, call: Duration::from_millis(50) }).unwrap();
    let bytes = guest.module(if what.contains("large") { 15 } else { 1 });
    let direct = Plugin::compile(&engine, "guest".into(), &bytes, false, 1).unwrap();
    assert_eq!(direct.calling, Calling::Directly, "{what}");
    let component = Plugin::compile_as_component(&engine, "guest".into(), &bytes).unwrap();
    [direct, component].map(|plugin| {
        let plugin = Arc::new(plugin);
        let mut instances = Instances::new(engine.clone(), None);
        let number = Numbers::default().take();
        let binding = Arc::new(Binding::new(0, "guest".into(), Kind::Filter, "{}".into(), number));
        [(); 2].map(|()| {
            let mut head = RequestHead::new(Method::GET, "/path");
            head.fields.append("x-a", b"1");
            let exchange = Box::new(Exchange::new(head, None, IpAddr::from([127, 0, 0, 1]), 0));
            let (exchange, said) = instances.filter(&plugin, &binding, exchange, Step::Request { body: false });
            assert_eq!(exchange.head.target.as_str(), "/path", "the exchange came back");
            match said {
                Ok((Verdict::Next | Verdict::Replace(_), _)) => End::Next,
                Ok((Verdict::Respond(head, _), _)) => End::Respond(head.status.as_u16()),
                Err(Failure::Trapped(_)) => End::Trap,
                Err(Failure::TimedOut) => End::Stop,
                Err(Failure::Nonsense(_)) => End::Nonsense,
                Err(other) => panic!("{what}: {other}"),
            }
        })
    })
}

fn check(cases: Vec<(&str, Guest, End)>) {
    for (what, guest, end) in cases {
        assert_eq!(ends(what, &guest), [end; 2], "{what}");
    }
}

/// How often a call is tried that was stopped: time limits are of the clock, and the machine may be busy.
const TRIALS: usize = 4;

#[test]
fn a_verdict_is_read_with_care() {
    let at = |at: u32| Guest::calling(format!("(i32.const {})", at as i32));
    let reply = |headers: [u32; 2], body: [u32; 2]| {
        Guest::answering(1, [418, headers[0], headers[1], body[0], body[1]]).with(512, b"x-b\xff12")
    };
    // One header, and where its name and value are.
    let header = |words: [u32; 4]| {
        let words: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        reply([256, 1], [0, 0]).with(256, &words)
    };
    check(vec![
        ("nothing wanted", at(NEXT), End::Next),
        ("an answer", reply([0, 0], [512, 3]), End::Respond(418)),
        ("an answer with a header", header([512, 3, 516, 2]), End::Respond(418)),
        ("a verdict beyond the end", at(65536 - 20), End::Trap),
        ("a verdict far beyond the end", at(u32::MAX - 3), End::Trap),
        ("a verdict that is not aligned", at(NEXT + 2), End::Trap),
        ("a case that there is not", Guest::answering(2, [0; 5]), End::Trap),
        ("no status", Guest::answering(1, [99, 0, 0, 0, 0]), End::Nonsense),
        ("a body beyond the end", reply([0, 0], [65536 - 3, 4]), End::Trap),
        ("a body of a length that overflows", reply([0, 0], [512, u32::MAX]), End::Trap),
        ("a body that is all of a large memory", reply([0, 0], [0, 15 << 16]), End::Respond(418)),
        ("headers beyond the end", reply([65536 - 16, 2], [0, 0]), End::Trap),
        ("headers that are not aligned", reply([258, 1], [0, 0]), End::Trap),
        ("headers of a length that overflows", reply([256, 1 << 28], [0, 0]), End::Trap),
        ("no headers, in no place", reply([65544, 0], [0, 0]), End::Trap),
        ("a name beyond the end", header([65536 - 2, 3, 516, 2]), End::Trap),
        ("a name that is no text", header([512, 4, 516, 2]), End::Trap),
        ("a value that is no text", header([512, 3, 515, 2]), End::Trap),
        ("a name that HTTP does not have", header([516, 0, 516, 2]), End::Nonsense),
    ]);
}

#[test]
fn what_a_guest_says_to_the_host_is_read_with_care() {
    let calling = |call: &str| {
        Guest::calling(format!("{call} (i32.const {NEXT})")).with(512, b"x-b\xff12").with(2048, b"\xff\xff\xff\xff")
    };
    let set = |at: i32, length: i32| {
        calling(&format!("(drop (call $set (i32.const {at}) (i32.const {length}) (i32.const 516) (i32.const 2)))"))
    };
    let log = |level: i32, at: i32, length: i32| {
        calling(&format!("(call $log (i32.const {level}) (i32.const {at}) (i32.const {length}))"))
    };
    check(vec![
        ("a header", set(512, 3), End::Next),
        ("a name beyond the end", set(65535, 2), End::Trap),
        ("a name far beyond the end", set(-4, 8), End::Trap),
        ("a name of a length that overflows", set(512, -1), End::Trap),
        ("a name that is no text", set(512, 4), End::Trap),
        ("no name, at the end", set(65536, 0), End::Next),
        ("no name, beyond the end", set(65537, 0), End::Trap),
        ("a line of the log", log(4, 512, 3), End::Next),
        ("a level that there is not", log(5, 512, 3), End::Trap),
        ("a path", calling("(call $path (i32.const 1024))"), End::Next),
        ("a path to a place that is not aligned", calling("(call $path (i32.const 1025))"), End::Trap),
        ("a path to a place beyond the end", calling("(call $path (i32.const 65532))"), End::Trap),
        (
            "a value to a place beyond the end",
            calling("(call $get (i32.const 512) (i32.const 3) (i32.const 65528))"),
            End::Trap,
        ),
        ("all headers", calling("(call $headers (i32.const 1024))"), End::Next),
        ("all headers to a place beyond the end", calling("(call $headers (i32.const 65536))"), End::Trap),
    ]);
}

#[test]
fn room_is_made_with_care() {
    let making = |room: &'static str| Guest {
        room,
        ..Guest::calling(format!("(call $path (i32.const 1024)) (i32.const {NEXT})"))
    };
    check(vec![
        ("room", making(ROOM), End::Next),
        ("room at the end", making("(i32.const 65536)"), End::Trap),
        ("room beyond the end", making("(i32.const -1)"), End::Trap),
        ("room that goes beyond the end", making("(i32.const 65535)"), End::Trap),
        ("room and a trap", making("unreachable"), End::Trap),
        ("room and a loop", making("(loop (br 0)) (i32.const 4096)"), End::Stop),
        ("room and a call of the host", making("(drop (call $now)) (i32.const 4096)"), End::Trap),
        // The list of headers has numbers in it, which lie at multiples of four.
        (
            "room that is not aligned",
            Guest {
                room: "(i32.const 4097)",
                ..Guest::calling(format!("(call $headers (i32.const 1024)) (i32.const {NEXT})"))
            },
            End::Trap,
        ),
    ]);
}

#[test]
fn what_is_cleaned_up_is_what_was_returned_and_nothing_else_may_happen_then() {
    let cleaning = |post: &'static str| Guest { post, ..Guest::calling(format!("(i32.const {NEXT})")) };
    check(vec![
        ("a trap", cleaning("unreachable"), End::Trap),
        ("a loop", cleaning("(loop (br 0))"), End::Stop),
        ("a call of the host", cleaning("(drop (call $now))"), End::Trap),
        ("the place", cleaning("(if (i32.ne (local.get 0) (i32.const 64)) (then unreachable))"), End::Next),
    ]);
    // It counts how often it cleaned up, in the verdict that it returns the next time: by then 200 is there.
    let counting = Guest {
        post: "(i32.store (i32.const 128) (i32.const 1)) (i32.store (i32.const 132) (i32.const 200))",
        ..Guest::calling(format!("(i32.const {VERDICT})"))
    };
    assert_eq!(ends("counting", &counting), [End::Next, End::Respond(200)]);
}

#[test]
fn limits_hold() {
    let grown = format!(
        "(if (result i32) (i32.eq (memory.grow (i32.const 100)) (i32.const -1))
            (then (i32.const {VERDICT})) (else (i32.const {NEXT})))"
    );
    let mut growing = Guest::answering(1, [200, 0, 0, 0, 0]);
    growing.call = grown;
    check(vec![
        ("more memory than there may be", growing, End::Respond(200)),
        ("a loop", Guest::calling("(loop (br 0)) (i32.const 64)"), End::Stop),
        ("no end of calls", Guest::calling("(call $call (local.get 0))"), End::Trap),
        ("a trap", Guest::calling("unreachable"), End::Trap),
    ]);
}

#[test]
fn what_is_unusual_is_called_as_a_component() {
    let engine = Engine::new(Limits { memory: MEMORY, call: Duration::from_millis(50) }).unwrap();
    let text = Guest::calling(format!("(call $path (i32.const 1024)) (i32.const {NEXT})")).text(1);
    let compile = |text: &str, wit: &str, encoding| {
        Plugin::compile(&engine, "guest".into(), &embedded(text, wit, encoding), false, 1).map(|it| it.calling)
    };
    assert_eq!(compile(&text, WIT, StringEncoding::UTF8).unwrap(), Calling::Directly);
    let why_not = |more: &str, encoding| {
        let text = text.replacen("(memory", &format!("{more} (memory"), 1);
        match compile(&text, WIT, encoding).unwrap() {
            Calling::Directly => panic!("{more}: called directly"),
            Calling::AsComponent(why) => why,
        }
    };
    assert_eq!(why_not("", StringEncoding::UTF16), "its strings are not UTF-8");
    assert_eq!(why_not("(func $begin) (start $begin)", StringEncoding::UTF8), "its core module has a start function");
    let other = WIT.replace("path: func() -> string;", "path: func() -> list<u8>;");
    let error = compile(&text, &other, StringEncoding::UTF8).unwrap_err();
    assert!(
        format!("{error:#}").contains("linking the component"),
        "another type of the same core signature: {error:#}"
    );
    let newer = WIT.replace("moongate:plugin@0.1.0", "moongate:plugin@0.1.7");
    let text = text.replace("@0.1.0", "@0.1.7");
    assert_eq!(compile(&text, &newer, StringEncoding::UTF8).unwrap(), Calling::Directly, "patch versions only add");
}
