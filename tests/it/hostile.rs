//! A loaded gateway and everything that a plugin can do wrong: no request of other routes fails, the process stays, and
//! what was taken of its memory comes back.

use std::fs;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::plugins::{Load, two, with_plugins};
use crate::support::client::{Client, get};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::wasm::fixture;

/// A route of its own, with another balancer.
const OTHER: &str = "[[routes]]\npath_prefix = \"/other\"\nservice = \"s\"\nbalancer = \"random\"\n";

/// Plugs a file and waits until the gateway has an opinion of it.
async fn plug(gateway: &Gateway, name: &str, file: &str) {
    let before = gateway.plugin(name).await;
    gateway.plug(name, fixture(file));
    eventually(&format!("{file} is looked at"), async || {
        let now = gateway.plugin(name).await;
        ["sha256", "error_at", "refused"].iter().any(|key| now[key] != before[key])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_balancer_does_is_felt_by_others() {
    let [a, b] = two().await;
    let gateway = Gateway::of(&[&a, &b], &format!("workers = 2\n{OTHER}"));
    let load = Load::on(gateway.http, "/other", 2);
    let whole = fs::read(fixture("last")).unwrap();
    let mut settled = 0;
    for round in 0..3 {
        for plugin in [
            "looping",
            "late-loop",
            "deep",
            "hungry",
            "trapping",
            "trap-sometimes",
            "trap-configure",
            "wrong-index",
            "flood",
            "slow-start",
            "answers",
        ] {
            plug(&gateway, "round-robin", plugin).await;
            for _ in 0..30 {
                assert_eq!(get(gateway.http, "/s/").await.status, StatusCode::OK, "{plugin}");
            }
            // A file that is being written: never whole, and never a plugin.
            gateway.plug_bytes("round-robin", &whole[..whole.len() / (2 + round)]);
        }
        gateway.unplug("round-robin");
        eventually("the bundled one is back", async || {
            let status = gateway.plugin("round-robin").await;
            (&status["bundled"], &status["state"]) == (&true.into(), &"active".into())
        })
        .await;
        // What compiling takes is the compiler's, and is kept by the allocator: the first round settles it.
        let now = gateway.memory();
        if round == 0 {
            settled = now;
        }
        println!("round {round}: {} KiB", now / 1024);
        assert!(now < settled + settled / 2, "{settled} and then {now} bytes");
    }
    load.assert_flawless().await;
}

/// Each call that never ends holds up all that its worker has to do, so there must be few, over all workers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_is_found_out_by_all_workers_together() {
    let [a, b] = two().await;
    let gateway = Gateway::of(&[&a, &b], "workers = 2");
    let load = Load::on(gateway.http, "/s", 4);
    plug(&gateway, "round-robin", "late-loop").await;
    eventually("it is quarantined", async || gateway.plugin("round-robin").await["state"] == "quarantined").await;
    let reason = gateway.plugin("round-robin").await["quarantined"]["reason"].as_str().unwrap().to_owned();
    // One more may have begun in the other worker.
    assert!(["3 of 3 ", "3 of 4 "].iter().any(|start| reason.starts_with(start)), "{reason}");
    load.assert_flawless().await;
}

#[tokio::test]
async fn a_flood_of_lines_is_cut() {
    let [a, b] = two().await;
    let gateway = with_plugins(&[&a, &b], &[("mine", "flood")], "workers = 1\n[defaults]\nbalancer = \"mine\"");
    let mut client = Client::to(gateway.http).await;
    let began = Instant::now();
    for _ in 0..200 {
        assert_eq!(client.get("/s/").await.status, StatusCode::OK);
    }
    let seconds = began.elapsed().as_secs() as usize + 2;
    let lines: Vec<String> =
        gateway.log().lines().filter(|it| it.contains("a line of the flood")).map(str::to_owned).collect();
    assert!(!lines.is_empty() && lines.len() <= 100 * seconds, "{} lines in {seconds} s", lines.len());
    assert!(lines.iter().all(|it| it.len() < 1300), "a line is cut after a KiB");
}

#[tokio::test]
async fn heads_and_notes_do_not_grow_without_end() {
    let [a, b] = two().await;
    let gateway = with_plugins(&[&a, &b], &[("huge", "huge")], "workers = 1\nfilters = [\"huge\"]");
    let reply = get(gateway.http, "/s/").await;
    let taken: usize = reply.header("x-taken").parse().unwrap();
    assert!((50..70).contains(&taken), "64 KiB are {taken} fields of 1000 bytes");
    assert_eq!(reply.header("x-noted"), "false");
    let reply = get(gateway.http, "/s/more").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "a megabyte of head is no answer");
}

/// Far more often than anybody compiles; what is loaded in the end is what lay there last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_replacements_a_second_are_survived() {
    let [a, b] = two().await;
    let gateway = Gateway::of(&[&a, &b], &format!("workers = 2\n[plugins]\ncache = \"compiled\"\n{OTHER}"));
    let load = Load::on(gateway.http, "/other", 2);
    let files = ["first", "last", "trapping", "looping"].map(|it| fs::read(fixture(it)).unwrap());
    for number in 0..300 {
        gateway.plug_bytes("round-robin", &files[number % files.len()]);
        assert_eq!(get(gateway.http, "/s/").await.status, StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gateway.plug_bytes("round-robin", &files[1]);
    let mut client = Client::to(gateway.http).await;
    eventually("the last one serves", async || {
        let texts = [client.get("/s/").await, client.get("/s/").await].map(|it| it.text().to_owned());
        texts == [b.name(), b.name()]
    })
    .await;
    load.assert_flawless().await;
}

/// So many swaps as `MOONGATE_SWAPS` says, 300 if it says nothing: memory stays where it was after the first of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_leave_no_memory_behind() {
    let swaps: usize = std::env::var("MOONGATE_SWAPS").ok().and_then(|it| it.parse().ok()).unwrap_or(300);
    let [a, b] = two().await;
    let gateway = Gateway::of(&[&a, &b], "workers = 2\n[plugins]\ncache = \"compiled\"\n");
    let mut client = Client::to(gateway.http).await;
    let (mut settled, mut most) = (0, 0);
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for swap in 0..swaps {
        let (plugin, expected) = if swap % 2 == 0 { ("first", a.name()) } else { ("last", b.name()) };
        let began = Instant::now();
        gateway.plug("round-robin", fixture(plugin));
        // Three in a row, because the one before may have had the same answer by chance.
        let mut same = 0;
        while same < 3 {
            same = if client.get("/s/").await.text() == expected { same + 1 } else { 0 };
            assert!(began.elapsed() < Duration::from_secs(30), "waited in vain: traffic follows");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The first of each is compiled.
        if swap < 2 { &mut first } else { &mut later }.push(began.elapsed());
        match swap {
            0..100 => settled = settled.max(gateway.memory()),
            _ => most = most.max(gateway.memory()),
        }
    }
    later.sort();
    let of = |share: usize| later[later.len() * share / 100];
    println!("from a file to an answer: compiled {first:?}, known p50 {:?}, p99 {:?}", of(50), of(99));
    println!("{swaps} swaps: at most {} KiB in the first hundred, {} KiB after", settled / 1024, most / 1024);
    assert!(most < settled + (4 << 20), "{settled} bytes, and then {most}");
}
