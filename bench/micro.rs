//! What the parts of a request's way cost by themselves: `cargo bench --bench micro`. Against a gateway in use, and others,
//! measures the crate beside this file.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use moongate::config::{BalancerFailure, Timeouts};
use moongate::endpoint::Endpoints;
use moongate::http1::encode;
use moongate::http1::head::{self, Limits};
use moongate::message::{Length, RequestHead};
use moongate::plugin::host::{Exchange, Step};
use moongate::plugin::instance::Turn;
use moongate::plugin::{Binding, Calling, Engine, Instances, Kind, Numbers, Plugin, bundled, engine};
use moongate::proxy::headers::{self, Client, RequestId};
use moongate::proxy::metrics;
use moongate::registry;
use moongate::routes::{Matcher, Route, Routes, Use};
use moongate::snapshot::Rules;

/// As a browser's script sends it.
const REQUEST: &[u8] =
    b"GET /r5/item?id=1 HTTP/1.1\r\nHost: gateway.example:8080\r\nUser-Agent: Mozilla/5.0 (X11; Linux \
x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\nAccept: application/json\r\nAccept-Language: en-GB,en;q=0.8\r\n\
Accept-Encoding: gzip, deflate, br\r\nReferer: https://shop.example/cart\r\nCookie: session=0123456789abcdef\r\n\
Connection: keep-alive\r\n\r\n";

const LIMITS: Limits = Limits { head: 32 << 10, fields: 100, target: 8 << 10 };

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn read() -> RequestHead {
    head::whole_request(REQUEST, &LIMITS).expect("a request").0.head
}

fn binding(plugin: &str, kind: Kind, config: &str) -> Arc<Binding> {
    Arc::new(Binding::new(0, plugin.into(), kind, config.into(), Numbers::default().take()))
}

fn routes(count: usize) -> Routes {
    let route = |order: usize| {
        let prefix = format!("/r{order}").parse().expect("a prefix");
        Arc::new(Route {
            name: format!("r{order}").into(),
            matcher: Matcher { host: None, prefix, methods: Vec::new(), headers: Vec::new(), order },
            strip_prefix: true,
            service: "s".into(),
            balancers: [Use {
                binding: binding("round-robin", Kind::Balancer, "{}"),
                on_failure: BalancerFailure::Fallback,
                from_files: Box::default(),
                canary: None,
                shadow: None,
            }]
            .into(),
            filters: Box::default(),
            timeout: Timeouts::default(),
            retries: 0,
            max_body: 0,
            series: 0,
        })
    };
    Routes::new((0..count).map(route).collect(), None, None)
}

fn endpoints(count: u16) -> Arc<Endpoints> {
    let endpoint = |port| registry::Endpoint {
        address: ([127, 0, 0, 1], port).into(),
        scheme: registry::Scheme::Http,
        weight: 1,
        zone: "".into(),
        labels: Vec::new(),
    };
    let service = registry::Service { endpoints: (1..=count).map(endpoint).collect(), ..Default::default() };
    Arc::new(Endpoints::new(&service, &Arc::default(), &Arc::default()))
}

fn heads(criterion: &mut Criterion) {
    criterion.bench_function("read a request's head", |bencher| {
        bencher.iter(|| head::whole_request(black_box(REQUEST), &LIMITS));
    });
    let config =
        moongate::config::file::parse("", std::path::Path::new("moongate.toml")).expect("an empty configuration");
    let rules = Rules::new(&config);
    let client = Client::new(CLIENT, false, &rules);
    let mut rng = fastrand::Rng::with_seed(1);
    criterion.bench_function("rewrite a request's header fields, and write them", |bencher| {
        let mut out = Vec::with_capacity(4096);
        let rewrite = |mut head: RequestHead| {
            let id = RequestId::of(&mut head, &mut rng);
            headers::settle(&mut head, &rules.paths).expect("a plain path");
            headers::introduce(&mut head, &client, &rules).expect("plain fields");
            headers::to_endpoint(&mut head, Length::Known(0), false);
            out.clear();
            encode::request(&mut out, &head);
            (head, id)
        };
        bencher.iter_batched(read, rewrite, BatchSize::SmallInput);
    });
}

fn matching(criterion: &mut Criterion) {
    let head = read();
    for count in [10, 10_000] {
        let routes = routes(count);
        criterion.bench_function(&format!("find one of {count} routes"), |bencher| {
            bencher.iter(|| drop(black_box(routes.find(black_box(&head)))));
        });
    }
}

fn plugins(criterion: &mut Criterion) {
    let limits = engine::Limits { memory: 16 << 20, call: Duration::from_millis(10) };
    let engine = Engine::new(limits).expect("an engine");
    for directly in [true, false] {
        let called = if directly { "directly" } else { "as a component" };
        let plugin = |name: &str| {
            let (name, bytes) = bundled::BUNDLED.iter().find(|it| it.0 == name).expect("a bundled plugin");
            let plugin = match directly {
                true => Plugin::compile(&engine, (*name).into(), bytes, true, 1),
                false => Plugin::compile_as_component(&engine, (*name).into(), bytes),
            };
            let plugin = Arc::new(plugin.expect("it compiles"));
            assert_eq!(plugin.calling == Calling::Directly, directly, "{name}");
            plugin
        };
        let mut instances = Instances::new(engine.clone(), None);
        for (name, count) in [("round-robin", 3), ("round-robin", 10_000), ("random", 3), ("weighted", 3)] {
            let (plugin, binding, endpoints) = (plugin(name), binding(name, Kind::Balancer, "{}"), endpoints(count));
            let mut head = read();
            criterion.bench_function(&format!("{name} picks one of {count}, {called}"), |bencher| {
                bencher.iter(|| {
                    let turn = Turn { sequence: binding.count(), attempt: 0, tried: &[], client: CLIENT };
                    instances.pick(&plugin, &binding, &endpoints, &mut head, turn).expect("a pick")
                });
            });
        }
        let filter = plugin("set-header");
        let binding = binding("set-header", Kind::Filter, r#"{"name":"x-mine","value":"on"}"#);
        let mut in_hand = Some(Box::new(Exchange::new(read(), "/".to_owned(), CLIENT, 0)));
        criterion.bench_function(&format!("set-header sets a header, {called}"), |bencher| {
            bencher.iter(|| {
                let lent = in_hand.take().expect("it came back");
                let (back, verdict) = instances.filter(&filter, &binding, lent, Step::Request { body: false });
                in_hand = Some(back);
                verdict.expect("a verdict")
            });
        });
    }
}

/// The counts of one response: of all, of its route and of its service, with the bucket of its time.
fn counting(criterion: &mut Criterion) {
    let worker = metrics::Worker::new(100, 100);
    let mut at = 0;
    criterion.bench_function("count a response", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % 10;
            let placed = metrics::Placed { route: at, service: at };
            worker.answered_for(http::StatusCode::OK, black_box(Duration::from_micros(700)), Some(placed));
        });
    });
}

/// What a guest does to be measured: nothing, adds up 64 KiB byte by byte, and asks for a page of memory.
const GUEST: &str = r#"(module
    (memory (export "memory") 1 1000)
    (func (export "nothing") (param i32) (result i32) (local.get 0))
    (func (export "add") (param $count i32) (result i32) (local $at i32) (local $sum i32)
        (loop $next
            (local.set $sum (i32.add (local.get $sum) (i32.load8_u (local.get $at))))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $at) (local.get $count))))
        (local.get $sum))
    (func (export "grow") (param i32) (result i32) (memory.grow (i32.const 0))))"#;

/// What stops a plugin costs those that need not be stopped: the same guest with one limit after the other, as the gateway
/// sets them. `fuel` is what it does not use.
fn limits(criterion: &mut Criterion) {
    for (limit, time, memory, fuel) in [
        ("without limits", false, false, false),
        ("its time limited", true, false, false),
        ("its memory limited", false, true, false),
        ("its time and memory limited", true, true, false),
        ("its instructions counted as fuel", false, false, true),
    ] {
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(time).consume_fuel(fuel).max_wasm_stack(256 << 10);
        let engine = wasmtime::Engine::new(&config).expect("an engine");
        let module = wasmtime::Module::new(&engine, wat::parse_str(GUEST).expect("its text")).expect("a module");
        let bounds = wasmtime::StoreLimitsBuilder::new().memory_size(64 << 20).build();
        let mut store = wasmtime::Store::new(&engine, bounds);
        if memory {
            store.limiter(|bounds| bounds);
        }
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).expect("an instance");
        for (name, argument) in [("nothing", 1), ("add", 64 << 10), ("grow", 0)] {
            let call = instance.get_typed_func::<i32, i32>(&mut store, name).expect("a function");
            criterion.bench_function(&format!("a guest does {name}, {limit}"), |bencher| {
                bencher.iter(|| {
                    if time {
                        store.set_epoch_deadline(2);
                    }
                    if fuel {
                        store.set_fuel(1 << 40).expect("fuel");
                    }
                    call.call(&mut store, black_box(argument)).expect("an answer")
                });
            });
        }
    }
}

criterion_group!(benches, heads, matching, plugins, counting, limits);
criterion_main!(benches);
