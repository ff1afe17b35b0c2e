//! Plugins that are called directly do what they do as components: the same files, the same calls by chance, and nothing
//! that differs. The seed is printed; `MOONGATE_SEED` gives it again.

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use http::{Method, StatusCode};
use moongate::config::Kind;
use moongate::config::upstream::Settings;
use moongate::endpoint::{Endpoints, InFlight};
use moongate::message::{Fields, RequestHead, ResponseHead};
use moongate::plugin::bundled::BUNDLED;
use moongate::plugin::engine::Limits;
use moongate::plugin::host::{Answered, Exchange, Piece, Show, Step};
use moongate::plugin::instance::{Turn, Verdict};
use moongate::plugin::{Binding, Calling, Engine, Failure, Instances, Numbers, Plugin};
use moongate::registry;

use crate::support::wasm::{fixture, fixture_built_outside};

/// Calls of each plugin in each configuration.
const CALLS: usize = 150;

/// A token for `alice` until 2100, signed with the secret of the configuration below.
const TOKEN: &str =
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMH0.JKh5Q_BUIKlohGUs6CsGuoWdXqkCKTtS5jaKUKusFTM";

/// What the bundled plugins are configured with, rightly and wrongly. What depends on the time of day, or within
/// milliseconds, is left out: the two are not called at the same moment.
fn configurations(plugin: &str) -> &'static [&'static str] {
    match plugin {
        "basic-auth" => &[
            r#"{"users":{"ada":"plain:lovelace"},"user_header":"x-user","realm":"a \"b\""}"#,
            r#"{"htpasswd":"ada:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\nbob:$2y$05$abc"}"#,
        ],
        "body-limit" => &[r#"{"request":"10B","response":20}"#, r#"{"request":-1}"#],
        "canary" => &[r#"{"label":{"version":"2"},"share":0.3,"cookie":"try","by":"client-address"}"#],
        "consistent-hash" => &[r#"{"by":"path","load_factor":1.1}"#, r#"{"by":{"header":"x-user"},"points":7}"#],
        "cors" => &[r#"{"origins":["https://a.example","https://*.b.example"],"headers":["x-a"],"credentials":true}"#],
        "ip-allow" => &[r#"{"allow":["192.0.2.0/25","2001:db8::/32"],"deny":["192.0.2.7"]}"#, r#"{"allow":["1.2"]}"#],
        "json-redact" => &[
            r#"{"fields":["a","b.c"],"on":"both","invalid":"pass"}"#,
            r#"{"fields":["a"],"mode":"remove","on":"both","limit":64}"#,
        ],
        "jwt" => &[
            r#"{"secret":"a secret of the test of 32 bytes","claim_headers":{"sub":"x-user"}}"#,
            r#"{"secret":"short"}"#,
        ],
        "key-auth" => {
            &[r#"{"keys":{"shop":"a-long-random-key","jobs":"another-random-key"},"name_header":"x-client"}"#]
        }
        "least-request" | "peak-ewma" => &["{}", r#"{"choices":0}"#, r#"{"choices":33}"#],
        "maglev" => &[r#"{"by":{"cookie":"session"},"table":251}"#, r#"{"by":{"query":"id"},"table":250}"#],
        "priority" => &["{}", r#"{"label":"tier","minimum":2}"#],
        "rate-limit" => &[r#"{"rate":"5/h","burst":5,"by":{"header":"x-user"},"missing":"deny","headers":false}"#],
        "redirect" => &[r#"{"to":"https://a.example/","when":{"path_prefix":"/a"}}"#, r#"{"https":true,"status":302}"#],
        "request-id" => &["{}", r#"{"header":"x-id","format":"hex","trust":false,"echo":false}"#],
        "rewrite-path" => &[
            r#"{"prefix":"/a","to":"/z"}"#,
            r#"{"regex":"^/([a-z]+)/(.*)$","to":"/$2/$1","query":{"set":{"x":"1"},"remove":["id"]}}"#,
            r#"{"regex":"(","to":"/"}"#,
        ],
        "set-header" => &[
            r#"{"name":"x-env","value":"prod","on":"both"}"#,
            r#"{"name":"Via","value":"a","mode":"append"}"#,
            r#"{"name":"server","mode":"remove","on":"both"}"#,
        ],
        "sticky" => &["{}", r#"{"cookie":"session","secret":"s","max_age":60,"same_site":"strict"}"#],
        "zone-aware" => &[r#"{"zone":"a"}"#, r#"{"zone":"b","minimum":2,"spill":1,"slack":0}"#],
        "random" | "round-robin" | "weighted" => &["{}", r#"{"no":1}"#],
        other => panic!("there is no configuration for {other}: add some"),
    }
}

/// One plugin, called in one way.
struct Side {
    plugin: Arc<Plugin>,
    instances: Instances,
    numbers: Numbers,
}

impl Side {
    fn bind(&self, kind: Kind, config: &str) -> Arc<Binding> {
        Arc::new(Binding::new(0, self.plugin.name.clone(), kind, config.into(), self.numbers.take()))
    }
}

/// So long that nothing is stopped because the machine is busy, which would happen to one of the two.
fn engine(call: Duration) -> Engine {
    Engine::new(Limits { memory: 32 << 20, call }).unwrap()
}

/// Both ways of calling a file.
fn sides(engine: &Engine, name: &str, bytes: &[u8]) -> [Side; 2] {
    let direct = Plugin::compile(engine, name.into(), bytes, true, 1).unwrap();
    assert_eq!(direct.calling, Calling::Directly, "{name}");
    let component = Plugin::compile_as_component(engine, name.into(), bytes).unwrap();
    assert_eq!(component.calling.word(), "as a component");
    [direct, component].map(|plugin| Side {
        plugin: Arc::new(plugin),
        instances: Instances::new(engine.clone(), None),
        numbers: Numbers::default(),
    })
}

fn seed() -> u64 {
    let given = std::env::var("MOONGATE_SEED").ok().and_then(|it| it.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("MOONGATE_SEED={seed}");
    seed
}

/// Failures as they are compared: the words of a trap are the engine's.
fn told<T>(outcome: Result<T, Failure>) -> Result<T, Failure> {
    outcome.map_err(|failure| match failure {
        Failure::Trapped(_) => Failure::Trapped(String::new()),
        other => other,
    })
}

/// Calls both. What a plugin and its host draw is the same for both.
fn both<T: PartialEq + std::fmt::Debug>(
    rng: &mut Rng,
    sides: &mut [Side; 2],
    mut call: impl FnMut(usize, &mut Side) -> T,
) -> T {
    let seed = rng.u64(..);
    let [direct, component] = [0, 1].map(|at| {
        fastrand::seed(seed);
        call(at, &mut sides[at])
    });
    assert_eq!(direct, component, "{}: directly, and as a component", sides[0].plugin.name);
    direct
}

fn some<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.usize(..of.len())]
}

/// Endpoints by chance, some of them busy or slow.
fn endpoints(rng: &mut Rng) -> (Arc<Endpoints>, Vec<InFlight>) {
    let count = rng.u16(0..9);
    let endpoint = |at: u16, rng: &mut Rng| {
        let mut labels = Vec::new();
        for (name, values) in [("priority", ["0", "1", "2"]), ("tier", ["0", "1", "x"]), ("version", ["1", "2", ""])] {
            if rng.bool() {
                labels.push((name.into(), some(rng, &values).into()));
            }
        }
        registry::Endpoint {
            address: ([10, 0, 0, 1], 80 + at).into(),
            scheme: registry::Scheme::Http,
            weight: rng.u16(0..4),
            zone: some(rng, &["", "a", "b"]).into(),
            labels,
        }
    };
    let endpoints = (0..count).map(|at| endpoint(at, rng)).collect();
    let service = registry::Service { endpoints, ..registry::Service::default() };
    let endpoints = Endpoints::new(&service, &Arc::new(Settings::default()), &Arc::default());
    let mut busy = Vec::new();
    for (at, endpoint) in endpoints.iter().enumerate() {
        let answered = endpoint.admit().unwrap();
        // So far apart that no load makes up for it, and none that the time between two calls could.
        answered.answered(StatusCode::OK, Duration::from_millis(13_u64.pow(at as u32 % 3)));
        drop(answered);
        busy.extend((0..rng.usize(..5)).map(|_| endpoint.admit().unwrap()));
    }
    (Arc::new(endpoints), busy)
}

fn client(rng: &mut Rng) -> IpAddr {
    some(rng, &["192.0.2.1", "192.0.2.7", "192.0.2.200", "2001:db8::1", "198.51.100.9"]).parse().unwrap()
}

fn request(rng: &mut Rng) -> RequestHead {
    let method = some(rng, &["GET", "GET", "POST", "OPTIONS", "DELETE"]).parse::<Method>().unwrap();
    let target =
        some(rng, &["/", "/a", "/a/b?id=7", "/ab/c?id=8&x=%20", "/long/path/of/some/parts?session=1", "/z?key=no"]);
    let mut head = RequestHead::new(method, target);
    let bearer = format!("Bearer {TOKEN}");
    let long = "v".repeat(rng.usize(..3000));
    for (name, values) in [
        ("host", &["shop.example", "a.example:8080"][..]),
        ("origin", &["https://a.example", "https://x.b.example", "null"]),
        ("access-control-request-method", &["PUT", "GET"]),
        ("access-control-request-headers", &["x-a", "x-b, x-c"]),
        ("authorization", &["Basic YWRhOmxvdmVsYWNl", "Basic !", &bearer, "Bearer a.b.c"]),
        ("x-api-key", &["a-long-random-key", "no"]),
        ("cookie", &["session=1; try=always", "try=never", "moongate_session=abc; session=2", ";;="]),
        ("content-type", &["application/json", "text/plain"]),
        ("content-encoding", &["gzip", "identity"]),
        ("X-User", &["ada", "bob", "\u{e4}"]),
        ("x-correlation-id", &["1", "not one at all"]),
        ("x-long", &[&long]),
    ] {
        if rng.u8(..3) == 0 {
            head.fields.append(name, some(rng, values).as_bytes());
        }
    }
    if rng.u8(..8) == 0 {
        head.fields.append("x-user", b"\xff\xfe");
    }
    head
}

fn response(rng: &mut Rng) -> ResponseHead {
    let mut head = ResponseHead::new(StatusCode::from_u16([200, 204, 404, 503][rng.usize(..4)]).unwrap());
    for (name, values) in [
        ("content-type", &["application/json; charset=utf-8", "text/html"][..]),
        ("vary", &["accept", "*"]),
        ("Server", &["origin"]),
        ("set-cookie", &["a=1", "session=2; Path=/"]),
        ("content-encoding", &["br"]),
        ("access-control-allow-origin", &["*"]),
    ] {
        if rng.bool() {
            head.fields.append(name, some(rng, values).as_bytes());
        }
    }
    head
}

fn body(rng: &mut Rng) -> Vec<u8> {
    let text = some(rng, &[r#"{"a":1,"b":{"c":[2]},"d":"x"}"#, r#"[{"a":"\u00e4"}, 7]"#, "no json", "", "{\"a\":"]);
    text.repeat(rng.usize(1..3)).into_bytes()
}

/// All that can be seen of an exchange, and of what the filter said.
type Seen = (String, String, Vec<String>, Option<(u16, Vec<String>)>, Result<(String, Option<Show>), Failure>);

fn listed(fields: &Fields) -> Vec<String> {
    fields.iter().map(|it| format!("{}: {}", it.name.escape_ascii(), it.value.escape_ascii())).collect()
}

fn seen(exchange: &Exchange, said: Result<(Verdict, Option<Show>), Failure>) -> Seen {
    let response = exchange.response.as_ref().map(|it| (it.head.status.as_u16(), listed(&it.head.fields)));
    let said = told(said).map(|(verdict, show)| match verdict {
        Verdict::Next => ("next".to_owned(), show),
        Verdict::Replace(by) => (format!("replace {}", by.escape_ascii()), show),
        Verdict::Respond(head, body) => {
            (format!("respond {} {:?} {}", head.status, listed(&head.fields), body.escape_ascii()), show)
        }
    });
    let head = &exchange.head;
    (head.method.to_string(), head.target.as_str().to_owned(), listed(&head.fields), response, said)
}

/// Whether so many failures are enough: one that loops costs its whole time, and after three they are left alone.
fn over(failure: &Failure, failed: usize) -> bool {
    match failure {
        Failure::TimedOut => true,
        Failure::Trapped(_) => failed == 2,
        _ => false,
    }
}

/// Some calls of a balancer.
fn picks(rng: &mut Rng, sides: &mut [Side; 2], config: &str) -> (usize, usize) {
    let bindings = [0, 1].map(|at| sides[at].bind(Kind::Balancer, config));
    let (mut list, mut busy) = endpoints(rng);
    let (mut picked, mut failed) = (0, 0);
    for _ in 0..CALLS {
        if rng.u8(..10) == 0 {
            drop(busy);
            (list, busy) = endpoints(rng);
        }
        let (head, client) = (request(rng), client(rng));
        let tried: Vec<u32> = (0..list.len() as u32).filter(|_| rng.u8(..6) == 0).collect();
        let sequence = rng.u64(..1000);
        let turn = Turn { sequence, attempt: tried.len() as u32, tried: &tried, client };
        let outcome = both(rng, sides, |at, side| {
            let mut lent = head.clone();
            let outcome = side.instances.pick(&side.plugin, &bindings[at], &list, &mut lent, turn);
            assert_eq!(listed(&lent.fields), listed(&head.fields), "the head came back");
            told(outcome)
        });
        if let Err(failure) = &outcome {
            failed += 1;
            if over(failure, failed) {
                break;
            }
        }
        picked += usize::from(matches!(outcome, Ok(Some(_))));
    }
    (picked, failed)
}

/// Some exchanges for a filter, or for a balancer that marks responses.
fn exchanges(rng: &mut Rng, sides: &mut [Side; 2], kind: Kind, config: &str) -> usize {
    let bindings = [0, 1].map(|at| sides[at].bind(kind, config));
    let (mut changed, mut failed) = (0, 0);
    'exchanges: for _ in 0..CALLS {
        let (head, answer, client) = (request(rng), response(rng), client(rng));
        let mut lent = [(); 2].map(|()| Some(Box::new(Exchange::new(head.clone(), None, client, 0))));
        let (sent, came) = (rng.bool().then(|| body(rng)), rng.bool().then(|| body(rng)));
        let pieces = |body: &[u8], whole: bool, rng: &mut Rng| -> Vec<(Vec<u8>, bool)> {
            let cut = if whole { body.len() } else { rng.usize(..=body.len()) };
            let (a, b) = body.split_at(cut);
            if whole { vec![(a.to_vec(), true)] } else { vec![(a.to_vec(), false), (b.to_vec(), true)] }
        };
        for responding in [false, true] {
            let there = if responding { &came } else { &sent };
            if responding {
                for exchange in lent.iter_mut().flatten() {
                    exchange.response = Some(Answered { head: answer.clone(), endpoint: ([10, 0, 0, 1], 80).into() });
                }
            }
            let mut steps: Vec<Option<(Vec<u8>, bool, bool)>> = vec![None];
            while let Some(piece) = steps.pop() {
                let whole = matches!(&piece, Some((_, _, true)));
                let body = there.is_some();
                let step = match (&piece, responding) {
                    (None, false) => Step::Request { body },
                    (None, true) => Step::Response { body },
                    (Some((bytes, last, _)), false) => Step::RequestBody(Piece { bytes, last: *last, whole }),
                    (Some((bytes, last, _)), true) => Step::ResponseBody(Piece { bytes, last: *last, whole }),
                };
                let before = (listed(&head.fields), listed(&answer.fields));
                let (_, target, fields, response, said) = both(rng, sides, |at, side| {
                    let exchange = lent[at].take().unwrap();
                    let (exchange, said) = side.instances.filter(&side.plugin, &bindings[at], exchange, step);
                    let seen = seen(&exchange, said);
                    lent[at] = Some(exchange);
                    seen
                });
                changed += usize::from(target != head.target.as_str());
                changed += usize::from(fields != before.0 || response.is_some_and(|it| it.1 != before.1));
                match said {
                    Ok((verdict, show)) => {
                        changed += usize::from(verdict != "next");
                        if let (Some(show), Some(body), None) = (show, there, &piece) {
                            let whole = show != Show::Pieces;
                            let all = pieces(body, whole, rng).into_iter().rev();
                            steps.extend(all.map(|(bytes, last)| Some((bytes, last, whole))));
                        }
                    }
                    Err(failure) => {
                        failed += 1;
                        if over(&failure, failed) {
                            break 'exchanges;
                        }
                    }
                }
            }
        }
    }
    changed + failed
}

/// A configuration with something wrong in it.
fn spoilt(rng: &mut Rng, config: &str) -> String {
    let mut bytes = config.as_bytes().to_vec();
    let at = rng.usize(..bytes.len());
    match rng.u8(..3) {
        0 => bytes.truncate(at),
        1 => bytes[at] = rng.alphanumeric() as u8,
        _ => bytes.insert(at, b'"'),
    }
    String::from_utf8(bytes).unwrap()
}

/// All uses of a plugin in one configuration; how much happened.
fn uses(rng: &mut Rng, sides: &mut [Side; 2], config: &str) -> usize {
    let kinds = sides[0].plugin.described.kinds;
    let mut happened = 0;
    if kinds.balancer {
        let (picked, failed) = picks(rng, sides, config);
        happened += picked + failed;
    }
    if kinds.filters() {
        let kind = if kinds.balancer { Kind::Balancer } else { Kind::Filter };
        happened += exchanges(rng, sides, kind, config);
    }
    happened
}

#[test]
fn bundled_plugins_do_the_same_on_both_ways() {
    let (mut rng, engine) = (Rng::with_seed(seed()), engine(Duration::from_secs(2)));
    assert!(BUNDLED.len() > 20);
    for (name, bytes) in BUNDLED {
        let mut sides = sides(&engine, name, bytes);
        assert_eq!(sides[0].plugin.described.kinds, sides[1].plugin.described.kinds);
        for config in configurations(name) {
            // By chance it may have nothing to do; again and again it has not.
            let happened = (0..20).map(|_| uses(&mut rng, &mut sides, config)).find(|it| *it > 0).unwrap_or(0);
            assert!(happened > 0, "{name} with {config} did nothing at all, so nothing was compared");
            for _ in 0..5 {
                let spoilt = spoilt(&mut rng, config);
                uses(&mut rng, &mut sides, &spoilt);
            }
        }
    }
}

#[test]
fn plugins_that_misbehave_fail_the_same_on_both_ways() {
    let (mut rng, engine) = (Rng::with_seed(seed()), engine(Duration::from_millis(300)));
    let mut failures = 0;
    for name in [
        "answers",
        "counts",
        "deep",
        "first",
        "flood",
        "hesitant",
        "huge",
        "hungry",
        "last",
        "late-loop",
        "late-trap",
        "late-wrong",
        "leaking",
        "looping",
        "looping-filter",
        "mixing",
        "trap-configure",
        "trap-sometimes",
        "trapping",
        "wrong-index",
    ] {
        let mut sides = sides(&engine, name, &fs::read(fixture(name)).unwrap());
        failures += usize::from(uses(&mut rng, &mut sides, "{}") > 0);
    }
    assert!(failures > 10, "{failures}");
    let shows = fs::read(fixture("shows")).unwrap();
    for what in ["upper", "count", "answer", "trap"] {
        for whole in ["", r#""whole":1000,"#] {
            let mut sides = sides(&engine, "shows", &shows);
            let config = format!(r#"{{{whole}"request":true,"response":true,"what":"{what}"}}"#);
            assert!(exchanges(&mut rng, &mut sides, Kind::Filter, &config) > 0, "{config}");
        }
    }
}

#[test]
fn a_plugin_of_somebody_else_is_called_directly_as_a_module_and_as_a_component() {
    let (mut rng, engine) = (Rng::with_seed(seed()), engine(Duration::from_secs(2)));
    let module = fs::read(fixture_built_outside()).unwrap();
    let component = wit_component::ComponentEncoder::default().module(&module).unwrap().encode().unwrap();
    for bytes in [module, component] {
        let mut sides = sides(&engine, "theirs", &bytes);
        assert!(picks(&mut rng, &mut sides, "{}").0 > 0);
    }
}
