//! Plugins in the running gateway: dropped in, replaced, taken away, broken and hostile.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use http_body_util::Full;
use moongate::plugin::bundled::BUNDLED;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::client::{Client, get, get_with};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::wasm::{fixture, fixture_built_outside};

/// Clients that ask without a pause until they are stopped, each on a connection that it keeps.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    pub(crate) fn on(address: SocketAddr, path: &'static str, clients: usize) -> Load {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let ask = || {
            let (stop, answered) = (stop.clone(), answered.clone());
            tokio::spawn(async move {
                let mut failures = Vec::new();
                let mut client = Client::to(address).await;
                while !stop.load(SeqCst) {
                    let reply = client.send(crate::support::client::request(path, &[])).await;
                    match reply {
                        Ok(reply) if reply.status == StatusCode::OK => drop(answered.fetch_add(1, SeqCst)),
                        Ok(reply) => failures.push(format!("{} {}", reply.status, reply.text())),
                        Err(error) => {
                            failures.push(format!("{error:?}"));
                            client = Client::to(address).await;
                        }
                    }
                }
                failures
            })
        };
        let clients = (0..clients).map(|_| ask()).collect();
        Load { stop, answered, clients }
    }

    /// Stops it; every request must have been answered with 200, and there must have been some.
    pub(crate) async fn assert_flawless(self) -> usize {
        self.stop.store(true, SeqCst);
        let mut failures = Vec::new();
        for client in self.clients {
            failures.extend(client.await.unwrap());
        }
        assert!(failures.is_empty(), "{} failed requests, such as {}", failures.len(), failures[0]);
        let answered = self.answered.load(SeqCst);
        assert!(answered > 0);
        answered
    }
}

/// A gateway with these endpoints of the service `s`, and with these files in its plugin directory when it starts.
pub(crate) fn with_plugins(origins: &[&Origin], plugins: &[(&str, &str)], config: &str) -> Gateway {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("services.toml"), crate::support::gateway::services("s", origins)).unwrap();
    fs::create_dir(dir.path().join("plugins")).unwrap();
    for (name, file) in plugins {
        fs::copy(fixture(file), dir.path().join(format!("plugins/{name}.wasm"))).unwrap();
    }
    Gateway::start_in(dir, &format!("{config}\n[auto_routes]\n"))
}

/// Two origins in the order in which balancers see them.
pub(crate) async fn two() -> [Origin; 2] {
    let mut origins = [Origin::start().await, Origin::start().await];
    origins.sort_by_key(|it| it.address);
    origins
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_replacements_under_load_fail_no_request() {
    let [a, b] = two().await;
    let gateway = Gateway::of(&[&a, &b], "workers = 2");
    let load = Load::on(gateway.http, "/s/", 4);
    let mut took = Vec::new();
    for swap in 0..100 {
        let (plugin, expected) = if swap % 2 == 0 { ("first", a.name()) } else { ("last", b.name()) };
        gateway.plug("round-robin", fixture(plugin));
        let began = Instant::now();
        eventually("traffic follows", async || get(gateway.http, "/s/").await.text() == expected).await;
        took.push(began.elapsed());
    }
    gateway.unplug("round-robin");
    eventually("the bundled one is back", async || gateway.plugin("round-robin").await["bundled"] == true).await;
    let answered = load.assert_flawless().await;
    took.sort();
    println!("{answered} requests; a swap took {:?} at the median, {:?} at most", took[50], took[99]);
    // The worst of a busy machine is no verdict on the gateway; half of them is.
    assert!(took[50] < Duration::from_millis(500), "{took:?}");
    assert!(answered > 1000, "that was no load");
}

/// The same file where a name is another one of the same length.
fn renamed(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let at: Vec<usize> = (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
    assert!(!at.is_empty(), "{from} is not in the file");
    at.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to.as_bytes()));
    bytes
}

#[tokio::test]
async fn what_cannot_serve_changes_nothing_and_says_why() {
    let [a, b] = two().await;
    let gateway = Gateway::of(&[&a, &b], "");
    gateway.plug("round-robin", fixture("first"));
    eventually("the good one serves", async || gateway.plugin("round-robin").await["bundled"] == false).await;
    let good = gateway.plugin("round-robin").await["sha256"].clone();

    let whole = fs::read(fixture("last")).unwrap();
    let foreign = renamed(&fs::read(fixture_built_outside()).unwrap(), "plugin/endpoints@", "plugin/processes@");
    let newer = renamed(&whole, "@0.1.0", "@0.9.0");
    for (bytes, reason) in [
        (&whole[..whole.len() / 2].to_vec(), "componen"),
        (&b"#!/bin/sh\necho this is text\n".to_vec(), "not WebAssembly"),
        (&Vec::new(), "the file is empty"),
        (&fs::read(fixture("answers")).unwrap(), "it is a filter, and a route uses it as a balancer"),
        (&fs::read(fixture("trap-configure")).unwrap(), "on trial, it trapped"),
        (&fs::read(fixture("looping")).unwrap(), "on trial, it was stopped for taking too long"),
        (&foreign, "moongate:plugin/processes@0.1.0"),
        (&newer, "this gateway speaks moongate:plugin@0.1"),
    ] {
        gateway.plug_bytes("round-robin", bytes);
        let mut told = String::new();
        eventually(&format!("the refusal says {reason:?}"), async || {
            told = gateway.plugin("round-robin").await["error"].as_str().unwrap_or_default().to_owned();
            told.contains(reason)
        })
        .await;
        let plugin = gateway.plugin("round-robin").await;
        assert_eq!((&plugin["state"], &plugin["sha256"]), (&"active".into(), &good), "{told}");
        let line = told.lines().next().unwrap();
        eventually(&format!("the log says: {line}"), async || gateway.log().contains(line)).await;
        for _ in 0..4 {
            assert_eq!(get(gateway.http, "/s/").await.text(), a.name());
        }
    }
    // A name that never worked.
    gateway.plug_bytes("mine", b"nothing");
    eventually("it is listed", async || gateway.plugin("mine").await["state"] == "failed").await;
    gateway.unplug("mine");
    eventually("it is forgotten", async || gateway.plugin("mine").await.is_null()).await;
    gateway.unplug("round-robin");
    eventually("the bundled one is back", async || gateway.plugin("round-robin").await["bundled"] == true).await;
    assert!(gateway.plugin("round-robin").await["error"].is_null());
}

/// Hostile balancers that pass their trial, or were there before a route used them: every request is answered.
#[tokio::test]
async fn hostile_balancers_leave_all_requests_answered() {
    for plugin in ["trapping", "trap-sometimes", "wrong-index", "hungry", "looping"] {
        let [a, b] = two().await;
        let gateway = Gateway::of(&[&a, &b], "");
        gateway.plug("round-robin", fixture(plugin));
        eventually("it is looked at", async || {
            let it = gateway.plugin("round-robin").await;
            it["bundled"] == false || !it["error"].is_null()
        })
        .await;
        let mut picks: HashMap<String, usize> = HashMap::new();
        for _ in 0..200 {
            let reply = get(gateway.http, "/s/").await;
            assert_eq!(reply.status, StatusCode::OK, "{plugin}: {}", reply.text());
            *picks.entry(reply.text().to_owned()).or_default() += 1;
        }
        // Where it does not decide, the fallback takes turns; the one that traps sometimes picks the first otherwise.
        let rarer = if plugin == "trap-sometimes" { 20 } else { 100 };
        assert_eq!(picks.values().min(), Some(&rarer), "{plugin}: {picks:?}");
    }
}

/// A plugin may behave on trial and misbehave later: `late` does what its name in the list says from the tenth pick.
#[tokio::test]
async fn a_balancer_that_turns_hostile_is_answered_for_and_suspended() {
    for (plugin, counter) in [("late-trap", "traps"), ("late-loop", "timeouts"), ("late-wrong", "nonsense")] {
        let [a, b] = two().await;
        // There is no version before it, and no bundled one, to go back to.
        let gateway = with_plugins(&[&a, &b], &[("mine", plugin)], "workers = 1\n[defaults]\nbalancer = \"mine\"");
        let mut client = Client::to(gateway.http).await;
        let began = Instant::now();
        for _ in 0..500 {
            assert_eq!(client.get("/s/").await.status, StatusCode::OK, "{plugin}");
        }
        let status = gateway.plugin("mine").await;
        assert!(status[counter].as_u64().unwrap() > 0, "{plugin}: {status}");
        assert_eq!(status["state"], "active", "{plugin}: {status}");
        assert!(gateway.metric("moongate_balancer_fallbacks_total").await > 0.0, "{plugin}");
        if plugin == "late-loop" {
            // 490 loops of 10 ms would be five seconds: it is left alone after a few.
            assert!(status[counter].as_u64().unwrap() < 50, "{:?}: {status}", began.elapsed());
        }
        // And a good one takes over at once.
        gateway.plug("mine", fixture("first"));
        eventually("the good one serves", async || client.get("/s/").await.text() == a.name()).await;
    }
}

#[tokio::test]
async fn a_failing_balancer_rejects_where_the_route_says_so() {
    let [a, b] = two().await;
    let config = "[[routes]]\npath_prefix = \"/strict\"\nservice = \"s\"\n\
                  balancer = { plugin = \"mine\", on_failure = \"reject\" }\n";
    let gateway = with_plugins(&[&a, &b], &[("mine", "late-trap")], &format!("workers = 1\n{config}"));
    eventually("it traps", async || get(gateway.http, "/strict").await.status == StatusCode::SERVICE_UNAVAILABLE).await;
    let reply = get(gateway.http, "/strict").await;
    assert!(reply.text().contains("a plugin of this route failed"), "{}", reply.text());
    // Taken away, the name is nobody's.
    gateway.unplug("mine");
    eventually("it is gone", async || gateway.plugin("mine").await.is_null()).await;
    assert_eq!(get(gateway.http, "/strict").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn weighted_is_exact_and_smooth() {
    let origins = [Origin::start().await, Origin::start().await, Origin::start().await];
    let dir = TempDir::new().unwrap();
    let weights = [5, 3, 2];
    let endpoints: Vec<String> = origins
        .iter()
        .zip(weights)
        .map(|(it, weight)| format!("{{ address = \"{}\", weight = {weight} }}", it.address))
        .collect();
    fs::write(dir.path().join("services.toml"), format!("[services.s]\nendpoints = [{}]\n", endpoints.join(", ")))
        .unwrap();
    let gateway = Gateway::start_in(dir, "workers = 2\n[defaults]\nbalancer = \"weighted\"\n[auto_routes]\n");
    let mut picks = Vec::new();
    for _ in 0..1000 {
        picks.push(get(gateway.http, "/s/").await.text().to_owned());
    }
    for (origin, weight) in origins.iter().zip(weights) {
        let name = origin.name();
        assert_eq!(picks.iter().filter(|it| **it == name).count(), weight * 100);
        // Smooth: nowhere is an endpoint more than one pick ahead of, or behind, its share.
        for (at, window) in picks.windows(10).enumerate() {
            let count = window.iter().filter(|it| **it == name).count();
            assert_eq!(count, weight, "in the ten picks from {at}");
        }
        let longest = picks.split(|it| *it != name).map(<[String]>::len).max().unwrap();
        assert!(longest <= if weight == 5 { 2 } else { 1 }, "{longest} in a row for weight {weight}");
    }
}

#[tokio::test]
async fn random_is_uniform() {
    let origins = [Origin::start().await, Origin::start().await, Origin::start().await, Origin::start().await];
    let all: Vec<&Origin> = origins.iter().collect();
    let gateway = Gateway::of(&all, "[defaults]\nbalancer = \"random\"\n");
    let mut client = Client::to(gateway.http).await;
    const DRAWS: usize = 4000;
    let mut repeats = 0;
    let mut last = String::new();
    for _ in 0..DRAWS {
        let now = client.get("/s/").await.text().to_owned();
        repeats += usize::from(now == last);
        last = now;
    }
    let expected = DRAWS as f64 / 4.0;
    let chi_square: f64 = origins.iter().map(|it| (it.hits() as f64 - expected).powi(2) / expected).sum();
    // Three degrees of freedom: a fair one exceeds this once in a million runs.
    assert!(chi_square < 30.7, "chi-square {chi_square}");
    // Independent draws repeat a quarter of the time (five standard deviations); taking turns would pass the above.
    assert!((repeats as f64 - expected).abs() < 137.0, "{repeats} repeats");
}

#[tokio::test]
async fn a_balancer_built_elsewhere_from_the_wit_alone_works_when_dropped_in() {
    // Where the first endpoint holds a request, one that looks at what is in flight avoids it.
    let (release, held) = tokio::sync::watch::channel(false);
    let slow = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let slow_address = slow.local_addr().unwrap();
    let holding = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = slow.accept().await.unwrap();
        let mut buffer = [0; 4096];
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
        let mut held = held;
        held.wait_for(|it| *it).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow").await.unwrap();
    });
    let quick = Origin::start().await;
    let dir = TempDir::new().unwrap();
    let text = format!(
        "[services.s]\nendpoints = [{{ address = \"{slow_address}\" }}, {{ address = \"{}\" }}]\n",
        quick.address
    );
    fs::write(dir.path().join("services.toml"), text).unwrap();
    let gateway = Gateway::start_in(dir, "workers = 2\n[auto_routes]\n");
    gateway.plug("round-robin", fixture_built_outside());
    eventually("it serves", async || gateway.plugin("round-robin").await["bundled"] == false).await;

    let address = gateway.http;
    let mut waiting = Vec::new();
    // The first pick may fall on either; ask, one at a time, until one is held.
    let inflight = format!("moongate_endpoint_inflight{{service=\"s\",endpoint=\"{slow_address}\"}}");
    loop {
        let asking = tokio::spawn(async move { get(address, "/s/").await.text().to_owned() });
        let mut held = false;
        eventually("it is answered or held", async || {
            held = gateway.metric(&inflight).await == 1.0;
            held || asking.is_finished()
        })
        .await;
        waiting.push(asking);
        if held {
            break;
        }
    }
    for _ in 0..50 {
        assert_eq!(get(gateway.http, "/s/").await.text(), quick.name());
    }
    release.send_replace(true);
    let mut answers = Vec::new();
    for it in waiting {
        answers.push(it.await.unwrap());
    }
    assert!(answers.contains(&"slow".to_owned()), "{answers:?}");
    holding.await.unwrap();
}

/// Echoes the request's headers as text.
async fn echo() -> Origin {
    Origin::answering(|request, _| {
        let headers = request.headers().iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
        let text = format!("{} {}\n{}", request.method(), request.uri(), headers.collect::<String>());
        Response::builder().header("x-secret", "1").body(Full::from(text)).unwrap()
    })
    .await
}

#[tokio::test]
async fn filters_rewrite_and_answer_in_order() {
    let origin = echo().await;
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("plugins")).unwrap();
    fs::copy(fixture("answers"), dir.path().join("plugins/answers.wasm")).unwrap();
    fs::write(dir.path().join("services.toml"), crate::support::gateway::services("s", &[&origin])).unwrap();
    let gateway = Gateway::start_in(
        dir,
        r#"
        [[routes]]
        path_prefix = "/both"
        service = "s"
        filters = [
            { plugin = "set-header", config = { name = "x-env", value = "prod", on = "both" } },
            { plugin = "set-header", config = { name = "x-env", value = "late", on = "both", mode = "append" } },
            { plugin = "set-header", config = { name = "x-secret", on = "response", mode = "remove" } },
        ]
        [[routes]]
        path_prefix = "/closed"
        service = "s"
        filters = [{ plugin = "set-header", config = { name = "x-env", value = "prod" } }, "answers"]
        "#,
    );
    let reply = get(gateway.http, "/both/a?b=c").await;
    assert_eq!(reply.status, StatusCode::OK);
    assert!(reply.text().starts_with("GET /a?b=c\n"), "{}", reply.text());
    assert!(reply.text().contains("x-env: prod\nx-env: late\n"), "{}", reply.text());
    assert!(reply.headers.get("x-secret").is_none());
    // In reverse on the way out: the one that sets comes last.
    let values: Vec<_> = reply.headers.get_all("x-env").iter().collect();
    assert_eq!(values, ["prod"]);

    let reply = get(gateway.http, "/closed").await;
    assert_eq!((reply.status, reply.text(), reply.header("server")), (StatusCode::FORBIDDEN, "no", "moongate"));
    assert!(!reply.header("x-why").is_empty());
    assert_eq!(origin.hits(), 1, "the answer was the filter's own");
}

/// `set-header` says in `configure` what it need not see. That is so from the first exchange on, which configures it.
#[tokio::test]
async fn a_filter_is_not_called_for_what_it_skips() {
    let origin = echo().await;
    for (on, asked, answered) in [("request", true, false), ("response", false, true), ("both", true, true)] {
        let filter =
            format!("{{ plugin = \"set-header\", config = {{ name = \"x-env\", value = \"prod\", on = \"{on}\" }} }}");
        let gateway = Gateway::of(&[&origin], &format!("workers = 1\nfilters = [{filter}]\n"));
        for _ in 0..10 {
            let reply = get(gateway.http, "/s/").await;
            let told = (reply.text().contains("x-env: prod\n"), reply.headers.contains_key("x-env"));
            assert_eq!(told, (asked, answered), "{on}");
        }
        let calls = gateway.plugin("set-header").await["picks"].as_u64().unwrap();
        // The very first call for what is skipped is the one that finds that out.
        let expected = 10 * (u64::from(asked) + u64::from(answered)) + u64::from(!asked);
        assert_eq!(calls, expected, "{on}");
    }
}

#[tokio::test]
async fn a_failing_filter_closes_its_route_unless_it_may_be_skipped() {
    let origin = echo().await;
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("plugins")).unwrap();
    fs::copy(fixture("looping-filter"), dir.path().join("plugins/guard.wasm")).unwrap();
    fs::write(dir.path().join("services.toml"), crate::support::gateway::services("s", &[&origin])).unwrap();
    let gateway = Gateway::start_in(
        dir,
        r#"
        auto_routes = {}
        [[routes]]
        path_prefix = "/closed"
        service = "s"
        filters = ["guard"]
        [[routes]]
        path_prefix = "/open"
        service = "s"
        filters = [{ plugin = "guard", on_failure = "skip" }]
        "#,
    );
    for _ in 0..10 {
        assert_eq!(get(gateway.http, "/closed").await.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get(gateway.http, "/open").await.status, StatusCode::OK);
        assert_eq!(get(gateway.http, "/s/").await.status, StatusCode::OK);
    }
    assert_eq!(origin.hits(), 20);
    gateway.unplug("guard");
    eventually("it is gone", async || gateway.plugin("guard").await.is_null()).await;
    assert_eq!(
        get_with(gateway.http, "/closed", &[]).await.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "a guard is missed"
    );
}

#[tokio::test]
async fn round_robin_goes_on_where_it_was_when_its_plugin_is_replaced() {
    let [a, b] = two().await;
    let gateway = Gateway::of(&[&a, &b], "workers = 2");
    let (_, bundled) = BUNDLED.iter().find(|(name, _)| *name == "round-robin").unwrap();
    let mut last = String::new();
    for version in 0..5 {
        // The same plugin with another section at the end, so that it is another file.
        let mut bytes = bundled.to_vec();
        bytes.extend([0, 2, 1, b'a' + version]);
        gateway.plug_bytes("round-robin", &bytes);
        let mut sha = gateway.plugin("round-robin").await["sha256"].clone();
        for _ in 0..50 {
            let now = get(gateway.http, "/s/").await.text().to_owned();
            assert_ne!(now, last);
            last = now;
        }
        eventually("it is loaded", async || {
            let before = std::mem::replace(&mut sha, gateway.plugin("round-robin").await["sha256"].clone());
            before == sha && gateway.plugin("round-robin").await["bundled"] == false
        })
        .await;
    }
}

#[tokio::test]
async fn a_plugin_and_the_routes_that_need_it_may_come_in_any_order() {
    let [a, b] = two().await;
    let gateway = Gateway::of(&[&a, &b], "");
    let file = gateway.path("moongate.toml");
    let text = fs::read_to_string(&file).unwrap();
    let route = "[[routes]]\npath_prefix = \"/mine\"\nservice = \"s\"\nbalancer = \"mine\"\n";
    fs::write(gateway.path("new"), format!("{text}{route}")).unwrap();
    fs::rename(gateway.path("new"), &file).unwrap();
    eventually("it is refused", async || gateway.log().contains("there is no plugin \"mine\"")).await;
    assert_eq!(get(gateway.http, "/mine").await.status, StatusCode::NOT_FOUND);
    gateway.plug("mine", fixture("last"));
    eventually("both are there", async || get(gateway.http, "/mine").await.text() == b.name()).await;
}

#[tokio::test]
async fn the_same_bytes_written_again_change_nothing() {
    let [a, b] = two().await;
    let gateway = Gateway::of(&[&a, &b], "workers = 1");
    gateway.plug("round-robin", fixture("first"));
    eventually("it serves", async || gateway.plugin("round-robin").await["bundled"] == false).await;
    let loaded = gateway.plugin("round-robin").await["loaded_at"].clone();
    gateway.plug("round-robin", fixture("first"));
    // What is written after it is loaded after it.
    gateway.plug("other", fixture("last"));
    eventually("the later one is loaded", async || gateway.plugin("other").await["state"] == "active").await;
    assert_eq!(gateway.plugin("round-robin").await["loaded_at"], loaded);
}
