//! Endpoints that refuse, reset, hang, answer badly, are full or new: callers are to notice as little as can be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::support::client::{Client, get, request};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::service::{
    Rude, becomes, configure, endpoint, in_front_of, logged, moody, nobody, register, service,
};

/// Asks until the endpoint is ejected; the statuses that came back meanwhile.
async fn ask_until_ejected(gateway: &Gateway, address: SocketAddr) -> Vec<u16> {
    let mut statuses = Vec::new();
    let what = format!("{address} is ejected");
    eventually(&what, async || {
        statuses.push(get(gateway.http, "/s/").await.status.as_u16());
        endpoint(gateway, address).await["health"] == "ejected"
    })
    .await;
    statuses
}

/// An origin whose requests wait for permits.
async fn gated() -> (Rude, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let origin = Rude::start(move |stream| {
        let gate = gate.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|_| {
                let gate = gate.clone();
                async move {
                    gate.acquire().await.unwrap().forget();
                    Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("at last")))
                }
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
        });
    })
    .await;
    (origin, opened)
}

/// A request under way.
fn asking(gateway: &Gateway) -> JoinHandle<StatusCode> {
    let address = gateway.http;
    tokio::spawn(async move { get(address, "/s/").await.status })
}

async fn inflight(gateway: &Gateway, address: SocketAddr, count: u64) {
    let what = format!("{count} requests are in flight at {address}");
    eventually(&what, async || endpoint(gateway, address).await["inflight"] == count).await;
}

#[tokio::test]
async fn an_endpoint_that_refuses_or_resets_is_left_out_and_nobody_notices() {
    let good = Origin::start().await;
    let resetting = Rude::resetting().await;
    for bad in [nobody(), resetting.address] {
        let gateway =
            in_front_of(&[bad, good.address], "[upstream]\noutlier = { eject = \"1h\", max_eject = \"1h\" }\n");
        let statuses = ask_until_ejected(&gateway, bad).await;
        assert!(statuses.iter().all(|it| *it == 200), "{statuses:?}");
        let told = endpoint(&gateway, bad).await;
        assert!(told["reason"].as_str().unwrap().contains("failures in a row"), "{told}");
        assert_eq!((&told["candidate"], &told["ejections"]), (&false.into(), &1.into()));
        assert!(told["since"].as_str() < told["until"].as_str());
        let picks = told["picks"].clone();
        for _ in 0..20 {
            assert_eq!(get(gateway.http, "/s/").await.text(), good.name());
        }
        assert_eq!(endpoint(&gateway, bad).await["picks"], picks, "it gets nothing any more");
        logged(&gateway, "endpoint ejected").await;
        let labels = format!("{{service=\"s\",endpoint=\"{bad}\"}}");
        assert_eq!(gateway.metric(&format!("moongate_endpoint_ejections_total{labels}")).await, 1.0);
        assert_eq!(gateway.metric(&format!("moongate_endpoint_candidate{labels}")).await, 0.0);
    }
}

#[tokio::test]
async fn an_endpoint_that_hangs_or_is_unavailable_is_left_out_after_a_few_answers() {
    let good = Origin::start().await;
    let hanging = Rude::hanging().await;
    let (unavailable, _) = moody(503).await;
    for (bad, status) in [(hanging.address, 504), (unavailable.address, 503)] {
        let config = "[defaults]\ntimeout = { header = \"20ms\" }\n[upstream]\noutlier = { consecutive = 3 }\n";
        let gateway = in_front_of(&[bad, good.address], config);
        let statuses = ask_until_ejected(&gateway, bad).await;
        let failed = statuses.iter().filter(|it| **it == status).count();
        assert!(failed >= 3 && statuses.iter().all(|it| [200, status].contains(it)), "{statuses:?}");
        assert_eq!(endpoint(&gateway, bad).await["ejections"], 1);
        assert_eq!(get(gateway.http, "/s/").await.text(), good.name());
    }
}

#[tokio::test]
async fn an_application_error_or_a_success_in_between_ejects_nobody() {
    let good = Origin::start().await;
    let (faulty, mood) = moody(500).await;
    let gateway = in_front_of(&[faulty.address, good.address], "[upstream]\noutlier = { consecutive = 3 }\n");
    for _ in 0..20 {
        get(gateway.http, "/s/").await;
    }
    // Its turn is each second one; two bad ones, a good one.
    for status in [503, 503, 200].repeat(5) {
        mood.store(status, SeqCst);
        let before = faulty.hits();
        eventually("it is its turn", async || {
            get(gateway.http, "/s/").await;
            faulty.hits() > before
        })
        .await;
    }
    let told = endpoint(&gateway, faulty.address).await;
    assert_eq!((&told["health"], &told["ejections"]), (&"healthy".into(), &0.into()));
}

#[tokio::test]
async fn an_ejected_endpoint_comes_back_and_rests_longer_the_next_time() {
    let good = Origin::start().await;
    let (bad, mood) = moody(502).await;
    let gateway = in_front_of(
        &[bad.address, good.address],
        "[upstream]\noutlier = { consecutive = 2, eject = \"100ms\", max_eject = \"150ms\" }\n",
    );
    let rest = async || {
        let mut told = Value::Null;
        eventually("it is seen resting", async || {
            get(gateway.http, "/s/").await;
            told = endpoint(&gateway, bad.address).await;
            told["health"] == "ejected"
        })
        .await;
        let time = |key: &str| humantime::parse_rfc3339(told[key].as_str().unwrap()).unwrap();
        time("until").duration_since(time("since")).unwrap()
    };
    let near = |time: Duration, of: u64| time.abs_diff(Duration::from_millis(of)) <= Duration::from_millis(1);
    let first = rest().await;
    assert!(near(first, 100), "{first:?}");
    // Not always the second time: if it was back for 100 ms without a request, that made up for it.
    eventually("it rests longer", async || {
        becomes(&gateway, bad.address, "healthy").await;
        near(rest().await, 150)
    })
    .await;
    mood.store(200, SeqCst);
    becomes(&gateway, bad.address, "healthy").await;
    let before = bad.hits();
    eventually("it gets requests again", async || {
        assert_eq!(get(gateway.http, "/s/").await.status, StatusCode::OK);
        bad.hits() > before
    })
    .await;
    logged(&gateway, "endpoint back").await;
}

#[tokio::test]
async fn below_the_panic_threshold_all_endpoints_are_used() {
    let mut origins = Vec::new();
    for status in [503, 503, 200] {
        origins.push(moody(status).await.0);
    }
    let addresses: Vec<SocketAddr> = origins.iter().map(|it| it.address).collect();
    let gateway =
        in_front_of(&addresses, "[upstream]\noutlier = { consecutive = 2, eject = \"1h\", max_eject = \"1h\" }\n");
    for bad in &addresses[..2] {
        ask_until_ejected(&gateway, *bad).await;
    }
    let told = service(&gateway).await;
    assert_eq!(told["panic"], true);
    assert!(told["endpoints"].as_array().unwrap().iter().all(|it| it["candidate"] == true), "{told}");
    let before: Vec<usize> = origins.iter().map(Origin::hits).collect();
    for _ in 0..9 {
        get(gateway.http, "/s/").await;
    }
    assert!(origins.iter().zip(before).all(|(origin, before)| origin.hits() == before + 3));

    // The same with a threshold that allows it.
    configure(
        &gateway,
        "[upstream]\noutlier = { consecutive = 2, eject = \"1h\", max_eject = \"1h\", panic = \"30%\" }\n",
    );
    eventually("only the good one is used", async || service(&gateway).await["panic"] == false).await;
    for _ in 0..9 {
        assert_eq!(get(gateway.http, "/s/").await.text(), origins[2].name());
    }
}

#[tokio::test]
async fn the_only_endpoint_keeps_its_requests_whatever_it_does() {
    let (only, _) = moody(503).await;
    let gateway = in_front_of(&[only.address], "[upstream]\noutlier = { consecutive = 2, panic = \"0%\" }\n");
    ask_until_ejected(&gateway, only.address).await;
    for _ in 0..10 {
        assert_eq!(get(gateway.http, "/s/").await.text(), only.name(), "its own words, not ours");
    }
}

#[tokio::test]
async fn a_request_that_fails_everywhere_else_goes_to_an_ejected_endpoint_which_is_back_by_that() {
    let (first, mood) = moody(503).await;
    let second = Origin::start().await;
    let config = "[upstream]\noutlier = { consecutive = 3, eject = \"1h\", max_eject = \"1h\" }\n";
    let gateway = in_front_of(&[first.address, second.address], config);
    ask_until_ejected(&gateway, first.address).await;
    mood.store(200, SeqCst);
    drop(second);
    for _ in 0..50 {
        assert_eq!(get(gateway.http, "/s/").await.text(), first.name());
    }
    becomes(&gateway, first.address, "healthy").await;
}

#[tokio::test]
async fn requests_above_the_limit_go_elsewhere_and_then_get_a_prompt_503() {
    let (first, gate) = gated().await;
    let (second, _other_gate) = gated().await;
    let gateway = in_front_of(&[first.address], "[services.s]\nmax_requests = 1\n");
    let waiting = asking(&gateway);
    inflight(&gateway, first.address, 1).await;
    let asked = Instant::now();
    let reply = get(gateway.http, "/s/").await;
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!((reply.status, reply.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    assert_eq!(reply.header("server"), "moongate", "our own word, not the endpoint's");
    assert_eq!(gateway.metric("moongate_request_errors_total{reason=\"overloaded\"}").await, 1.0);
    assert_eq!(endpoint(&gateway, first.address).await["refused"], 1);
    gate.add_permits(1);
    assert_eq!(waiting.await.unwrap(), StatusCode::OK);

    register(&gateway, &[first.address, second.address]);
    eventually("there are two", async || service(&gateway).await["endpoints"].as_array().unwrap().len() == 2).await;
    let both = [asking(&gateway), asking(&gateway)];
    inflight(&gateway, first.address, 1).await;
    inflight(&gateway, second.address, 1).await;
    assert_eq!(get(gateway.http, "/s/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    both.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn connections_are_limited_over_all_workers_and_idle_ones_are_in_nobodys_way() {
    let (origin, gate) = gated().await;
    let gateway = in_front_of(&[origin.address], "workers = 3\n[services.s]\nmax_connections = 2\n");
    // Each client is served by whichever worker the kernel chooses.
    for round in 0..20 {
        let two = [asking(&gateway), asking(&gateway)];
        inflight(&gateway, origin.address, 2).await;
        assert_eq!(get(gateway.http, "/s/").await.status, StatusCode::SERVICE_UNAVAILABLE, "round {round}");
        gate.add_permits(2);
        for one in two {
            assert_eq!(one.await.unwrap(), StatusCode::OK, "round {round}");
        }
        inflight(&gateway, origin.address, 0).await;
    }
    eventually("idle ones above the limit are closed", async || {
        endpoint(&gateway, origin.address).await["connections"].as_u64().unwrap() <= 2
    })
    .await;
}

#[tokio::test]
async fn only_so_many_wait_for_a_connection() {
    // An endpoint that accepts nothing any more: its queue is full, and the system ignores who comes.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        queued.push(connected.unwrap());
        assert!(queued.len() < 100, "its queue has no end");
    }
    let config = "[defaults]\ntimeout = { connect = \"20s\" }\n[services.s]\nmax_pending = 1\n";
    let gateway = in_front_of(&[address], config);
    let waiting = asking(&gateway);
    eventually("one waits", async || endpoint(&gateway, address).await["pending"] == 1).await;
    let asked = Instant::now();
    assert_eq!(get(gateway.http, "/s/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(gateway.metric("moongate_request_errors_total{reason=\"overloaded\"}").await, 1.0);
    waiting.abort();
    eventually("who waited has gone", async || endpoint(&gateway, address).await["pending"] == 0).await;
}

#[tokio::test]
async fn a_new_endpoint_begins_with_a_tenth_of_its_share_whatever_the_balancer() {
    for balancer in ["round-robin", "weighted"] {
        let origins = [Origin::start().await, Origin::start().await, Origin::start().await];
        let addresses = [0, 1, 2].map(|at| origins[at].address);
        let config = |slow_start: &str| {
            format!("[defaults]\nbalancer = \"{balancer}\"\n[upstream]\nslow_start = \"{slow_start}\"\n")
        };
        let gateway = in_front_of(&addresses[..2], &config("1h"));
        let mut client = Client::to(gateway.http).await;
        let mut ask = async |count| {
            let before = [0, 1, 2].map(|at| origins[at].hits());
            for _ in 0..count {
                assert_eq!(client.get("/s/").await.status, StatusCode::OK);
            }
            [0, 1, 2].map(|at: usize| origins[at].hits() - before[at])
        };
        assert_eq!(ask(60).await, [30, 30, 0], "at the start all are equals");
        register(&gateway, &addresses);
        eventually("the third is there", async || gateway.endpoints("s").await.unwrap().len() == 3).await;
        let [first, second, third] = ask(600).await;
        assert!((19..=20).contains(&third), "{balancer}: {third}");
        // Each gets its 200 and about half of what the third hands on.
        assert!([first, second].iter().all(|it| (275..=305).contains(it)), "{balancer}: {first}, {second}");
        configure(&gateway, &config("0s"));
        let mut shares = [0; 3];
        eventually("without slow start its share is whole", async || {
            shares = ask(60).await;
            shares == [20, 20, 20]
        })
        .await;
    }
}

#[tokio::test]
async fn retries_are_bounded_by_the_budget() {
    let dead = [nobody(), Rude::resetting().await.address];
    let config = "[defaults]\nretries = 5\n[upstream]\noutlier = { consecutive = 0 }\nretry_budget = { ratio = \"20%\", min = 1 }\n";
    let gateway = in_front_of(&dead, config);
    let began = Instant::now();
    let mut client = Client::to(gateway.http).await;
    const REQUESTS: f64 = 500.0;
    for _ in 0..REQUESTS as usize {
        let status = client.send(request("/s/", &[])).await.unwrap().status;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
    }
    let retries = gateway.metric("moongate_retries_total").await;
    // 20 % of the requests, and the ten seconds' worth of one a second, and those of the seconds since.
    let most = REQUESTS / 5.0 + 10.0 + began.elapsed().as_secs_f64() + 1.0;
    assert!(retries <= most && retries >= 100.0, "{retries} retries, at most {most}");
    assert_eq!(gateway.metric("moongate_service_retries_refused_total{service=\"s\"}").await, REQUESTS - retries);
}

#[tokio::test]
async fn new_settings_apply_at_once_and_live_figures_stay() {
    let (origin, gate) = gated().await;
    let gateway = in_front_of(&[origin.address], "");
    let two = [asking(&gateway), asking(&gateway)];
    inflight(&gateway, origin.address, 2).await;
    configure(&gateway, "[upstream]\nmax_requests = 2\n");
    eventually("there is a limit", async || {
        let third = get_or_gone(gateway.http).await;
        third == Some(StatusCode::SERVICE_UNAVAILABLE)
    })
    .await;
    // The two that were there before count; those that were given up meanwhile are noticed after a while.
    inflight(&gateway, origin.address, 2).await;
    // More than two: one that was given up may not have been noticed there yet.
    gate.add_permits(100);
    for one in two {
        assert_eq!(one.await.unwrap(), StatusCode::OK);
    }
    assert!(endpoint(&gateway, origin.address).await["picks"].as_u64().unwrap() >= 2);
    assert_eq!(get(gateway.http, "/s/").await.status, StatusCode::OK);
}

/// The status, if it comes soon; the request is given up otherwise.
async fn get_or_gone(address: SocketAddr) -> Option<StatusCode> {
    let reply = tokio::time::timeout(Duration::from_millis(200), get(address, "/s/")).await;
    reply.ok().map(|it| it.status)
}
