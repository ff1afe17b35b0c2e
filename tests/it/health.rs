//! Active checks: endpoints are taken out, and brought back, by what they say when they are asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use http::{Method, Response};
use tokio::net::TcpStream;

use crate::support::client::get;
use crate::support::eventually;
use crate::support::h2;
use crate::support::origin::Origin;
use crate::support::service::{
    Rude, becomes, configure, endpoint, in_front_of, logged, moody, nobody, register, service,
};

#[tokio::test]
async fn checks_take_an_endpoint_out_and_bring_it_back() {
    let (first, mood) = moody(200).await;
    let second = Origin::start().await;
    let check = "[upstream]\nhealth_check = { path = \"/health\", interval = \"20ms\", unhealthy = 2 }\n";
    let gateway = in_front_of(&[first.address, second.address], check);
    let checks = format!("moongate_endpoint_checks_passed_total{{service=\"s\",endpoint=\"{}\"}}", first.address);
    eventually("it is checked", async || gateway.metric(&checks).await >= 3.0).await;
    assert_eq!(endpoint(&gateway, first.address).await["health"], "healthy");

    mood.store(404, SeqCst);
    becomes(&gateway, first.address, "unhealthy").await;
    assert_eq!(endpoint(&gateway, first.address).await["reason"], "status 404");
    for _ in 0..20 {
        assert_eq!(get(gateway.http, "/s/").await.text(), second.name());
    }
    mood.store(204, SeqCst);
    becomes(&gateway, first.address, "healthy").await;

    // One that vanishes is not checked any more, and one that appears is.
    let third = nobody();
    register(&gateway, &[second.address, third]);
    becomes(&gateway, third, "unhealthy").await;
    assert_eq!(endpoint(&gateway, third).await["reason"], "connection refused");
    let hits = first.hits();
    let passed = format!("moongate_endpoint_checks_passed_total{{service=\"s\",endpoint=\"{}\"}}", second.address);
    let now = gateway.metric(&passed).await;
    eventually("others are", async || gateway.metric(&passed).await > now + 3.0).await;
    assert_eq!(first.hits(), hits);

    // Who is not checked is well as far as anybody knows.
    configure(&gateway, "[upstream]\nhealth_check = { interval = \"20ms\" }\n[services.s]\nhealth_check = false\n");
    becomes(&gateway, third, "healthy").await;
    logged(&gateway, "endpoint unhealthy").await;
    logged(&gateway, "endpoint healthy").await;
}

#[tokio::test]
async fn an_endpoint_with_http2_is_asked_over_it() {
    let mood = Arc::new(AtomicU16::new(200));
    let (answers, asked) = (mood.clone(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    let origin = h2::Endpoint::serving(move |request, mut respond| {
        let (status, count) = (answers.load(SeqCst), count.clone());
        async move {
            if (request.uri().path(), request.method()) == ("/health", &Method::GET) {
                count.fetch_add(1, SeqCst);
            }
            respond.send_response(Response::builder().status(status).body(()).unwrap(), true).map(drop)
        }
    })
    .await;
    let check = "[upstream]\nhealth_check = { path = \"/health\", interval = \"20ms\" }\n";
    let gateway = h2::in_front_of(&[origin.address], check);
    eventually("it is asked", async || asked.load(SeqCst) > 3).await;
    assert_eq!(endpoint(&gateway, origin.address).await["health"], "healthy");
    mood.store(500, SeqCst);
    becomes(&gateway, origin.address, "unhealthy").await;
    assert_eq!(endpoint(&gateway, origin.address).await["reason"], "status 500");
    mood.store(204, SeqCst);
    becomes(&gateway, origin.address, "healthy").await;
}

#[tokio::test]
async fn without_a_path_a_connection_is_enough() {
    let hanging = Rude::hanging().await;
    let refusing = nobody();
    let check = "[services.s]\nhealth_check = { interval = \"20ms\" }\n";
    let gateway = in_front_of(&[hanging.address, refusing], check);
    becomes(&gateway, refusing, "unhealthy").await;
    eventually("it is asked again and again", async || hanging.connections.load(SeqCst) > 3).await;
    assert_eq!(endpoint(&gateway, hanging.address).await["health"], "healthy");
    // With a path it is not: nothing comes.
    let check = "[services.s]\nhealth_check = { path = \"/\", interval = \"20ms\", timeout = \"20ms\" }\n";
    configure(&gateway, check);
    becomes(&gateway, hanging.address, "unhealthy").await;
    assert_eq!(endpoint(&gateway, hanging.address).await["reason"], "nothing in 20ms");
    assert_eq!(service(&gateway).await["panic"], true, "so all are used");
}

#[tokio::test]
async fn many_endpoints_are_not_checked_all_at_once() {
    const MANY: usize = 400;
    // Accepted connections: since the start, now, and at most.
    let (all, open, most) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut origins = Vec::new();
    for _ in 0..MANY {
        let (all, open, most) = (all.clone(), open.clone(), most.clone());
        let hang = move |stream: TcpStream| {
            let open = open.clone();
            all.fetch_add(1, SeqCst);
            most.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::spawn(async move {
                // Reads the request, and then the end.
                let mut buffer = [0; 1024];
                while stream.readable().await.is_ok() {
                    match stream.try_read(&mut buffer) {
                        Ok(0) => break,
                        Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break,
                        _ => {}
                    }
                }
                open.fetch_sub(1, SeqCst);
            });
        };
        origins.push(Rude::start(hang).await);
    }
    let addresses: Vec<SocketAddr> = origins.iter().map(|it| it.address).collect();
    let check = "[services.s]\nhealth_check = { path = \"/\", interval = \"1h\", timeout = \"300ms\" }\n";
    let gateway = in_front_of(&addresses, check);
    let began = Instant::now();
    eventually("all are checked", async || all.load(SeqCst) == MANY).await;
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1), "they are spread over 2 s, but came within {took:?}");
    // A few may be closed here later than there.
    assert!(most.load(SeqCst) <= 128 + 16, "{} at once", most.load(SeqCst));
    let unhealthy = async || {
        let told = service(&gateway).await;
        told["endpoints"].as_array().unwrap().iter().filter(|it| it["health"] == "unhealthy").count()
    };
    eventually("all are found out", async || unhealthy().await == MANY).await;
    assert_eq!(service(&gateway).await["panic"], true);
}
