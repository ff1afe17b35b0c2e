//! The bundled balancers, each on the property for which it is chosen.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use tempfile::TempDir;

use crate::support::client::{Client, get_with, request};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::raw::serving;

/// A services file with these endpoints of `s`: an address, and more keys.
fn services(endpoints: &[(SocketAddr, String)]) -> String {
    let endpoint = |(address, more): &(SocketAddr, String)| format!("{{ address = \"{address}\"{more} }}");
    format!("[services.s]\nendpoints = [{}]\n", endpoints.iter().map(endpoint).collect::<Vec<_>>().join(", "))
}

fn gateway(endpoints: &[(SocketAddr, String)], config: &str) -> Gateway {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("services.toml"), services(endpoints)).unwrap();
    Gateway::start_in(dir, &format!("{config}\n[auto_routes]\n"))
}

fn balanced(balancer: &str) -> String {
    format!("workers = 2\n[defaults]\nbalancer = {balancer}")
}

fn plain(origins: &[Origin]) -> Vec<(SocketAddr, String)> {
    origins.iter().map(|it| (it.address, String::new())).collect()
}

async fn origins(count: usize) -> Vec<Origin> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(Origin::start().await);
    }
    all
}

/// Replaces the services file, and waits until the gateway has it.
async fn follow(gateway: &Gateway, endpoints: &[(SocketAddr, String)]) {
    fs::write(gateway.path("services.new"), services(endpoints)).unwrap();
    fs::rename(gateway.path("services.new"), gateway.path("services.toml")).unwrap();
    let mut expected: Vec<String> = endpoints.iter().map(|it| it.0.to_string()).collect();
    expected.sort();
    eventually("the endpoints are these", async || {
        let mut known = gateway.endpoints("s").await.unwrap_or_default();
        known.sort();
        known == expected
    })
    .await;
}

/// Where the request of each user goes.
async fn places(gateway: &Gateway, users: usize) -> Vec<String> {
    let mut client = Client::to(gateway.http).await;
    let mut all = Vec::new();
    for user in 0..users {
        let name = format!("user-{user}");
        all.push(client.send(request("/s/", &[("x-user", &name)])).await.unwrap().text().to_owned());
    }
    all
}

fn moved(before: &[String], after: &[String]) -> usize {
    before.iter().zip(after).filter(|(a, b)| a != b).count()
}

async fn answer_after(time: Duration) -> Response<http_body_util::combinators::BoxBody<Bytes, hyper::Error>> {
    tokio::time::sleep(time).await;
    Response::new(Full::default().map_err(|never| match never {}).boxed())
}

/// How long 48 clients wait for the answers of 40 endpoints, one of which takes ten times as long: the 99th percentile.
async fn p99(balancer: &str) -> Duration {
    const QUICK: Duration = Duration::from_millis(100);
    let mut endpoints = vec![(serving(|_| answer_after(10 * QUICK)).await, String::new())];
    for _ in 1..40 {
        endpoints.push((serving(|_| answer_after(QUICK)).await, String::new()));
    }
    let gateway = gateway(&endpoints, &format!("workers = 1\n[defaults]\nbalancer = \"{balancer}\""));
    let mut clients = Vec::new();
    for _ in 0..48 {
        let mut client = Client::to(gateway.http).await;
        clients.push(tokio::spawn(async move {
            let mut took = Vec::new();
            for _ in 0..40 {
                let began = Instant::now();
                assert!(client.get("/s/").await.status.is_success());
                took.push(began.elapsed());
            }
            // What is learned about the endpoints at first is the price of learning.
            took.split_off(5)
        }));
    }
    let mut took = Vec::new();
    for client in clients {
        took.extend(client.await.unwrap());
    }
    took.sort();
    took[took.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_endpoint_is_avoided_by_those_who_look() {
    let round_robin = p99("round-robin").await;
    for balancer in ["least-request", "peak-ewma"] {
        let looking = p99(balancer).await;
        assert!(looking * 5 <= round_robin, "{balancer}: {looking:?}, round-robin: {round_robin:?}");
    }
}

#[tokio::test]
async fn a_key_goes_to_one_endpoint_and_moves_only_when_that_leaves() {
    const USERS: usize = 400;
    for balancer in [
        "{ plugin = \"consistent-hash\", config = { by = { header = \"x-user\" }, load_factor = 0 } }",
        "{ plugin = \"maglev\", config = { by = { header = \"x-user\" } } }",
    ] {
        let origins = origins(5).await;
        let gateway = gateway(&plain(&origins), &balanced(balancer));
        let before = places(&gateway, USERS).await;
        assert_eq!(moved(&before, &places(&gateway, USERS).await), 0, "{balancer}");
        let mut shares: HashMap<&str, usize> = HashMap::new();
        before.iter().for_each(|it| *shares.entry(it).or_default() += 1);
        assert!(shares.len() == 5 && shares.values().all(|it| (30..160).contains(it)), "{balancer}: {shares:?}");

        let left = origins[2].name();
        let others: Vec<_> = plain(&origins).into_iter().filter(|it| it.0 != origins[2].address).collect();
        follow(&gateway, &others).await;
        let after = places(&gateway, USERS).await;
        let lost = before.iter().filter(|it| **it == left).count();
        let moved = moved(&before, &after);
        assert!(moved >= lost && moved * 100 <= USERS * 25, "{balancer}: {moved} moved, {lost} had to");
        if balancer.contains("consistent") {
            assert_eq!(moved, lost, "{balancer}: only those of the one that left");
        }
        follow(&gateway, &plain(&origins)).await;
        assert_eq!(places(&gateway, USERS).await, before, "{balancer}: and they come back");
    }
}

/// All ask for the same key, and all at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_hot_key_does_not_flood_its_endpoint() {
    let mut endpoints = Vec::new();
    for _ in 0..5 {
        endpoints.push((serving(|_| answer_after(Duration::from_millis(500))).await, String::new()));
    }
    let balancer = "{ plugin = \"consistent-hash\", config = { by = { header = \"x-user\" } } }";
    let gateway = gateway(&endpoints, &format!("workers = 1\n[defaults]\nbalancer = {balancer}"));
    let asking: Vec<_> = (0..100).map(|_| tokio::spawn(get_with(gateway.http, "/s/", &[("x-user", "hot")]))).collect();
    for it in asking {
        assert!(it.await.unwrap().status.is_success());
    }
    let all = gateway.api("services").await;
    let picks: Vec<u64> =
        all["services"][0]["endpoints"].as_array().unwrap().iter().map(|it| it["picks"].as_u64().unwrap()).collect();
    assert_eq!(picks.iter().sum::<u64>(), 100);
    // A quarter more than its share of all that are in flight; without bounds one would have them all.
    assert!(picks.iter().all(|it| *it <= 26), "{picks:?}");
}

#[tokio::test]
async fn a_session_stays_while_its_endpoint_lives() {
    let origins = origins(4).await;
    let gateway = gateway(&plain(&origins[..3]), &balanced("\"sticky\""));
    let mut sessions = Vec::new();
    for _ in 0..6 {
        let reply = get_with(gateway.http, "/s/", &[]).await;
        let cookie = reply.header("set-cookie").split(';').next().unwrap().to_owned();
        assert!(cookie.starts_with("moongate_session=") && !cookie.contains("127.0.0.1"), "{cookie}");
        sessions.push((cookie, reply.text().to_owned()));
    }
    let homes: std::collections::HashSet<&String> = sessions.iter().map(|it| &it.1).collect();
    assert_eq!(homes.len(), 3, "who has none is spread");
    let with = |cookie: &str| {
        let cookie = format!("a=b; {cookie}");
        async move { get_with(gateway.http, "/s/", &[("cookie", &cookie)]).await }
    };
    for endpoints in [&origins[..4], &origins[..3]] {
        follow(&gateway, &plain(endpoints)).await;
        for (cookie, home) in &sessions {
            let reply = with(cookie).await;
            assert_eq!((reply.text(), reply.header("set-cookie")), (&**home, ""));
        }
    }
    // Only the sessions of the one that leaves move, and are told.
    follow(&gateway, &plain(&origins[1..3])).await;
    for (cookie, home) in &sessions {
        let reply = with(cookie).await;
        let stays = *home != origins[0].name();
        assert_eq!((reply.text() == home, reply.header("set-cookie").is_empty()), (stays, stays));
    }
}

#[tokio::test]
async fn a_gateway_asks_its_own_zone_while_that_is_enough() {
    let origins = origins(4).await;
    let zoned = |zones: [&str; 4]| -> Vec<_> {
        origins.iter().zip(zones).map(|(it, zone)| (it.address, format!(", zone = \"{zone}\""))).collect()
    };
    let config =
        "zone = \"a\"\nworkers = 2\n[defaults]\nbalancer = { plugin = \"zone-aware\", config = { minimum = 2 } }";
    let gateway = gateway(&zoned(["a", "a", "b", "b"]), config);
    let mut client = Client::to(gateway.http).await;
    let mut picks = async || {
        let mut picks = [0; 4];
        for _ in 0..200 {
            let name = client.get("/s/").await.text().to_owned();
            picks[origins.iter().position(|it| it.name() == name).unwrap()] += 1;
        }
        picks
    };
    let local = picks().await;
    assert!(local[0] > 50 && local[1] > 50 && local[2] + local[3] == 0, "{local:?}");
    follow(&gateway, &zoned(["a", "b", "b", "b"])[..]).await;
    eventually("one alone is not enough", async || picks().await.iter().all(|it| *it > 20)).await;

    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("moongate.toml"), "[defaults]\nbalancer = \"zone-aware\"\n").unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_moongate")).arg("check").current_dir(dir.path()).output().unwrap();
    let told = String::from_utf8(checked.stderr).unwrap();
    assert!(!checked.status.success() && told.contains("zone"), "{told}");
}

#[tokio::test]
async fn a_canary_by_label_has_its_share_of_ten_thousand() {
    let origins = origins(4).await;
    let labelled = |version: usize| format!(", labels = {{ version = \"{version}\" }}");
    let endpoints: Vec<_> =
        origins.iter().enumerate().map(|(at, it)| (it.address, labelled(1 + usize::from(at == 3)))).collect();
    let config = "label = { version = \"2\" }, share = \"5%\", header = { name = \"x-canary\", value = \"yes\" }";
    let gateway = gateway(&endpoints, &balanced(&format!("{{ plugin = \"canary\", config = {{ {config} }} }}")));
    let mut clients = [Client::to(gateway.http).await, Client::to(gateway.http).await];
    let mut picks: HashMap<String, usize> = HashMap::new();
    for number in 0..10_000 {
        *picks.entry(clients[number % 2].get("/s/").await.text().to_owned()).or_default() += 1;
    }
    let new = picks[&origins[3].name()];
    assert!((400..=600).contains(&new), "within 1 % of 5 %: {picks:?}");
    let old: Vec<usize> = origins[..3].iter().map(|it| picks[&it.name()]).collect();
    assert!(old.iter().all(|it| (3000..=3350).contains(it)), "{picks:?}");
    for _ in 0..20 {
        let reply = clients[0].send(request("/s/", &[("x-canary", "yes")])).await.unwrap();
        assert_eq!(reply.text(), origins[3].name());
    }
}

#[tokio::test]
async fn a_lower_tier_is_asked_when_the_higher_has_nobody() {
    let mut origins = origins(3).await;
    let tiers = [0, 0, 1];
    let endpoints: Vec<_> = origins
        .iter()
        .zip(tiers)
        .map(|(it, tier)| (it.address, format!(", labels = {{ priority = \"{tier}\" }}")))
        .collect();
    let gateway = gateway(&endpoints, &balanced("\"priority\""));
    let mut client = Client::to(gateway.http).await;
    let mut last = String::new();
    for _ in 0..20 {
        let now = client.get("/s/").await.text().to_owned();
        assert!(now != last && now != origins[2].name(), "the two of the first tier take turns");
        last = now;
    }
    let third = origins.pop().unwrap();
    let (addresses, name) = (origins.iter().map(|it| it.address).collect::<Vec<_>>(), third.name());
    drop(origins);
    for _ in 0..20 {
        let reply = client.get("/s/").await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, &*name));
    }
    let _back: Vec<Origin> = addresses.into_iter().map(Origin::again).collect();
    eventually("the first tier is back", async || client.get("/s/").await.text() != name).await;
}
