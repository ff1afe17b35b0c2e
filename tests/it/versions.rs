//! Versions of plugins without fear: what keeps failing goes, what is new is tried on a share, and what is good comes back.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;

use crate::plugins::{two, with_plugins};
use crate::support::client::{Client, get};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::wasm::fixture;

/// The balancer of the automatic route, as the API has it.
async fn balancer(gateway: &Gateway) -> Value {
    gateway.api("routes").await["routes"][0]["balancer"].clone()
}

#[tokio::test]
async fn what_keeps_failing_is_quarantined_and_the_version_before_comes_back() {
    // What was stopped has cost its worker the whole time limit, and counts twice.
    let all = [("late-trap", "it trapped", 5), ("late-loop", "stopped", 3), ("late-wrong", "of 2 endpoints", 5)];
    for (plugin, why, failures) in all {
        let [a, b] = two().await;
        let gateway = with_plugins(&[&a, &b], &[("mine", "first")], "workers = 1\n[defaults]\nbalancer = \"mine\"");
        let good = gateway.plugin("mine").await["sha256"].clone();
        gateway.plug("mine", fixture(plugin));
        eventually("it is loaded", async || gateway.plugin("mine").await["sha256"] != good).await;
        let bad = gateway.plugin("mine").await["sha256"].clone();

        let mut client = Client::to(gateway.http).await;
        let mut failing_since = None;
        let back = loop {
            assert_eq!(client.get("/s/").await.status, StatusCode::OK, "{plugin}");
            let status = gateway.plugin("mine").await;
            if status["state"] == "quarantined" {
                break status;
            }
            let failures = ["traps", "timeouts", "nonsense"].map(|it| status[it].as_u64().unwrap());
            if failures.iter().sum::<u64>() > 0 {
                let since: &Instant = failing_since.get_or_insert_with(Instant::now);
                assert!(since.elapsed().as_secs() < 10, "{plugin}: {status}");
            }
        };
        assert_eq!((&back["sha256"], &back["quarantined"]["sha256"]), (&good, &bad), "{plugin}");
        let reason = back["quarantined"]["reason"].as_str().unwrap();
        assert!(reason.contains(why), "{reason}");
        assert!(reason.starts_with(&format!("{failures} of {failures} calls failed within")), "{reason}");
        assert_eq!(back["error"], back["quarantined"]["reason"]);
        assert_eq!(gateway.metric("moongate_plugin_quarantined{plugin=\"mine\"}").await, 1.0);
        eventually("the log has it", async || gateway.log().contains("plugin quarantined")).await;
        for _ in 0..10 {
            assert_eq!(client.get("/s/").await.text(), a.name(), "the version before picks the first");
        }

        // The same bytes once more are not tried once more; others are, and end it.
        gateway.plug("mine", fixture(plugin));
        eventually("it is refused", async || gateway.log().contains("this version is quarantined")).await;
        assert_eq!(gateway.plugin("mine").await["sha256"], good);
        gateway.plug("mine", fixture("last"));
        eventually("another one serves", async || client.get("/s/").await.text() == b.name()).await;
        let status = gateway.plugin("mine").await;
        assert_eq!((&status["state"], &status["quarantined"]), (&"active".into(), &Value::Null));
    }
}

#[tokio::test]
async fn a_bundled_plugin_comes_back_in_the_place_of_what_keeps_failing() {
    let [a, b] = two().await;
    let gateway = Gateway::of(&[&a, &b], "workers = 1");
    gateway.plug("round-robin", fixture("late-trap"));
    eventually("it is loaded", async || gateway.plugin("round-robin").await["bundled"] == false).await;
    let mut client = Client::to(gateway.http).await;
    eventually("it is quarantined", async || {
        assert_eq!(client.get("/s/").await.status, StatusCode::OK);
        gateway.plugin("round-robin").await["state"] == "quarantined"
    })
    .await;
    assert_eq!(gateway.plugin("round-robin").await["bundled"], true);
    let picks: Vec<String> = [client.get("/s/").await, client.get("/s/").await].map(|it| it.text().to_owned()).into();
    assert_ne!(picks[0], picks[1]);
    gateway.unplug("round-robin");
    eventually("it is forgotten", async || gateway.plugin("round-robin").await["state"] == "active").await;
}

#[tokio::test]
async fn a_canary_gets_its_share() {
    let [a, b] = two().await;
    let config =
        "workers = 2\n[defaults]\nbalancer = { plugin = \"old\", canary = { plugin = \"new\", share = \"5%\" } }";
    let gateway = with_plugins(&[&a, &b], &[("old", "first"), ("new", "last")], config);
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::to(gateway.http).await);
    }
    let mut picks: HashMap<String, usize> = HashMap::new();
    for number in 0..2000 {
        let reply = clients[number % 4].get("/s/").await;
        *picks.entry(reply.text().to_owned()).or_default() += 1;
    }
    assert_eq!((picks[&a.name()], picks[&b.name()]), (1900, 100));
    let canary = balancer(&gateway).await["canary"].clone();
    assert_eq!((&canary["state"], &canary["share"]), (&"active".into(), &0.05.into()));
    assert_eq!((&canary["calls"], &canary["failures"], &canary["requests"]), (&100.into(), &0.into(), &100.into()));
    assert_eq!(gateway.metric("moongate_canary_calls_total{route=\"auto\",plugin=\"new\"}").await, 100.0);
}

#[tokio::test]
async fn a_canary_that_traps_is_rolled_back_and_nobody_notices() {
    let [a, b] = two().await;
    let config =
        "workers = 1\n[defaults]\nbalancer = { plugin = \"old\", canary = { plugin = \"new\", share = \"50%\" } }";
    let gateway = with_plugins(&[&a, &b], &[("old", "last"), ("new", "late-trap")], config);
    let mut client = Client::to(gateway.http).await;
    eventually("it is rolled back", async || {
        assert_eq!(client.get("/s/").await.status, StatusCode::OK);
        balancer(&gateway).await["canary"]["state"] == "rolled-back"
    })
    .await;
    let canary = balancer(&gateway).await["canary"].clone();
    assert_eq!(canary["reason"], "3 of its calls in a row failed");
    assert_eq!(gateway.metric("moongate_canary_rolled_back{route=\"auto\",plugin=\"new\"}").await, 1.0);
    for _ in 0..20 {
        assert_eq!(client.get("/s/").await.text(), b.name(), "only the old one picks");
    }
    // Another version is another matter.
    gateway.plug("new", fixture("first"));
    eventually("it gets its share again", async || client.get("/s/").await.text() == a.name()).await;
    assert_eq!(balancer(&gateway).await["canary"]["state"], "active");
}

/// The canary's picks go to an endpoint that answers with 500.
#[tokio::test]
async fn a_canary_whose_requests_fail_more_often_is_rolled_back() {
    let mut origins = [
        Origin::start().await,
        Origin::answering(|_, _| Response::builder().status(500).body(Full::default()).unwrap()).await,
    ];
    let bad = origins[1].address;
    origins.sort_by_key(|it| it.address);
    let (old, new) = if origins[0].address == bad { ("last", "first") } else { ("first", "last") };
    let config = "workers = 1\n[defaults.canary]\n".replace(
        "[defaults.canary]",
        "[upstream.outlier]\nconsecutive = 0\n[defaults]\nbalancer = { plugin = \"old\", canary = { plugin = \"new\", \
         share = \"50%\", rollback = { after = 20, errors = \"10%\" } } }",
    );
    let gateway = with_plugins(&[&origins[0], &origins[1]], &[("old", old), ("new", new)], &config);
    let mut client = Client::to(gateway.http).await;
    let mut failed = 0;
    for _ in 0..200 {
        failed += usize::from(client.get("/s/").await.status.is_server_error());
    }
    assert_eq!(failed, 20, "so many were asked for");
    let reason = balancer(&gateway).await["canary"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("20 of its 20 requests failed, of others 0 of "), "{reason}");
}

#[tokio::test]
async fn a_shadow_is_compared_and_decides_nothing() {
    let [a, b] = two().await;
    let config = "workers = 1\n[defaults]\nbalancer = { plugin = \"old\", shadow = \"round-robin\" }";
    let gateway = with_plugins(&[&a, &b], &[("old", "first")], config);
    let mut client = Client::to(gateway.http).await;
    for _ in 0..100 {
        assert_eq!(client.get("/s/").await.text(), a.name());
    }
    let shadow = balancer(&gateway).await["shadow"].clone();
    assert_eq!((&shadow["same"], &shadow["different"], &shadow["failures"]), (&50.into(), &50.into(), &0.into()));
    let metric = "moongate_shadow_picks_total{route=\"auto\",plugin=\"round-robin\",outcome=\"different\"}";
    assert_eq!(gateway.metric(metric).await, 50.0);
}

/// A filter's canary sees a request and its response, or neither of them.
#[tokio::test]
async fn a_filters_canary_sees_whole_exchanges() {
    let origin = Origin::answering(|request, _| {
        let asked = request.headers().get("x-version").map_or("", |it| it.to_str().unwrap());
        Response::new(Full::from(asked.to_owned()))
    })
    .await;
    let set = |value: &str| format!("{{ name = \"x-version\", value = \"{value}\", on = \"both\" }}");
    let config = format!(
        "workers = 1\nfilters = [{{ plugin = \"set-header\", config = {}, canary = {{ plugin = \"set-header\", \
         config = {}, share = \"30%\" }} }}]",
        set("old"),
        set("new")
    );
    let gateway = Gateway::of(&[&origin], &config);
    let mut client = Client::to(gateway.http).await;
    let mut new = 0;
    for _ in 0..1000 {
        let reply = client.get("/s/").await;
        assert_eq!(reply.header("x-version"), reply.text());
        new += usize::from(reply.text() == "new");
    }
    // By chance, with a standard deviation of 14.5.
    assert!((220..=380).contains(&new), "{new}");
    // The last request is counted when it has ended here, which the client need not wait for.
    eventually("all is counted", async || {
        let canary = gateway.api("routes").await["routes"][0]["filters"][0]["canary"].clone();
        (&canary["calls"], &canary["requests"]) == (&(2 * new).into(), &new.into())
    })
    .await;
}

#[tokio::test]
async fn the_first_request_of_a_filters_canary_counts() {
    let origin = Origin::start().await;
    let config =
        "workers = 1\nfilters = [{ plugin = \"request-id\", canary = { plugin = \"request-id\", share = \"100%\" } }]";
    let gateway = Gateway::of(&[&origin], config);
    assert_eq!(get(gateway.http, "/s/").await.status, StatusCode::OK);
    eventually("it is counted", async || {
        gateway.api("routes").await["routes"][0]["filters"][0]["canary"]["requests"] == 1
    })
    .await;
}

#[tokio::test]
async fn balancers_without_an_opinion_leave_it_to_the_next() {
    let [a, b] = two().await;
    let balancer = "{ plugin = \"hesitant\", fallback = { plugin = \"failing\", fallback = \"last\" } }";
    let config = format!("workers = 1\n[defaults]\nbalancer = {balancer}");
    let plugins = [("hesitant", "hesitant"), ("failing", "late-trap"), ("last", "last")];
    let gateway = with_plugins(&[&a, &b], &plugins, &config);
    let mut client = Client::to(gateway.http).await;
    let mut last = 0;
    for number in 0..100 {
        let reply = client.get("/s/").await;
        assert_eq!(reply.status, StatusCode::OK);
        // It has an opinion at every tenth pick; the next traps from its tenth on; the last picks the last.
        let (opinion, second) = (number % 10 == 0, number <= 11);
        let expected = if opinion || second { a.name() } else { b.name() };
        assert_eq!(reply.text(), expected, "{number}");
        last += usize::from(reply.text() == b.name());
    }
    assert!(last > 70, "{last}");
    let fallback = gateway.api("routes").await["routes"][0]["fallback"].clone();
    assert_eq!((&fallback[0]["plugin"], &fallback[1]["plugin"]), (&"failing".into(), &"last".into()));
}

#[tokio::test]
async fn compiled_plugins_are_kept_and_not_believed_blindly() {
    let [a, b] = two().await;
    let gateway = Gateway::of(&[&a, &b], "[plugins]\ncache = \"compiled\"");
    gateway.plug("mine", fixture("first"));
    eventually("it is loaded", async || gateway.plugin("mine").await["state"] == "active").await;
    let dir = gateway.path("compiled");
    let files = || fs::read_dir(&dir).unwrap().map(|it| it.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(files().len(), 2, "round-robin and this one");
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let log = |gateway: &Gateway, told: bool| assert_eq!(gateway.log().contains("compiled plugin not used"), told);
    let again = gateway.beside(&["--listen", "127.0.0.1:0"]);
    log(&again, false);
    assert_eq!(get(again.http, "/s/").await.status, StatusCode::OK);
    // One byte of compiled code is another.
    for file in files() {
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(&file, bytes).unwrap();
    }
    let again = gateway.beside(&["--listen", "127.0.0.1:0"]);
    log(&again, true);
    assert_eq!(get(again.http, "/s/").await.status, StatusCode::OK);
    assert_eq!(files().len(), 2, "they were compiled once more");
}

/// Whoever may look at the routes need not know the keys of their callers.
#[tokio::test]
async fn the_admin_side_does_not_tell_secrets_of_plugins() {
    let dir = tempfile::TempDir::new().unwrap();
    let filter = "{ plugin = \"key-auth\", config = { keys = { shop = \"a-long-random-key\" }, header = \"x-key\" } }";
    fs::write(dir.path().join("services.toml"), "[services.s]\nendpoints = [{ address = \"127.0.0.1:9\" }]\n").unwrap();
    let gateway = Gateway::start_in(dir, &format!("filters = [{filter}]\n[auto_routes]\n"));
    let routes = gateway.api("routes").await;
    let wanted = serde_json::json!({ "keys": { "shop": "(secret)" }, "header": "x-key" });
    assert_eq!(routes["routes"][0]["filters"][0]["config"], wanted);
    let explained = gateway.api("explain?path=/s/").await.to_string();
    assert!(explained.contains("key-auth") && !explained.contains("a-long-random-key"), "{explained}");
}

/// The texts of files become values of a plugin's configuration, and are followed.
#[tokio::test]
async fn a_plugin_is_given_texts_from_files() {
    let origin = Origin::answering(|request, _| {
        let asked = request.headers().get("x-secret").map_or("", |it| it.to_str().unwrap());
        Response::new(Full::from(asked.to_owned()))
    })
    .await;
    let dir = tempfile::TempDir::new().unwrap();
    fs::create_dir(dir.path().join("secrets")).unwrap();
    fs::write(dir.path().join("secrets/value"), "one").unwrap();
    fs::write(dir.path().join("services.toml"), crate::support::gateway::services("s", &[&origin])).unwrap();
    let filter = "{ plugin = \"set-header\", config = { name = \"x-secret\" }, files = { value = \"secrets/value\" } }";
    let gateway = Gateway::start_in(dir, &format!("filters = [{filter}]\n[auto_routes]\n"));
    assert_eq!(get(gateway.http, "/s/").await.text(), "one");
    let new = gateway.path("secrets/new");
    fs::write(&new, "two").unwrap();
    fs::rename(&new, gateway.path("secrets/value")).unwrap();
    eventually("it follows", async || get(gateway.http, "/s/").await.text() == "two").await;
    // What cannot be used changes nothing.
    fs::write(gateway.path("secrets/value"), "a\nb").unwrap();
    eventually("it is refused", async || gateway.log().contains("configuration refused")).await;
    assert_eq!(get(gateway.http, "/s/").await.text(), "two");
}
