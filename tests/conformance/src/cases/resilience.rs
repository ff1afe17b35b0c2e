//! Endpoints that fail: what a caller sees of it, and what is never done twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::raw::message;
use crate::case::{Group, Severity::*, want};
use crate::client::{Response, ask};
use crate::origin::{Exchange, Gate, Then, answer};
use crate::peer::Need;

const SECOND: Duration = Duration::from_secs(1);

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

/// Answers, and closes without a word: what a pool finds out too late.
fn then_closes(it: &mut Exchange<'_>) -> Then {
    it.read_body();
    it.send(answer(200, "ok"));
    Then::Close
}

/// Answers once on each connection, and then takes the next request only to reset.
fn answers_once(it: &mut Exchange<'_>, answered: &AtomicUsize) -> Then {
    let earlier = it.request.connection < answered.load(Ordering::SeqCst);
    it.read_body();
    if earlier {
        return Then::Reset;
    }
    answered.store(it.request.connection + 1, Ordering::SeqCst);
    it.send(answer(200, "ok"));
    Then::Keep
}

pub(super) fn fill(group: &mut Group) {
    group.add(Correctness, "de facto", "refused-connection-goes-to-another", |lane| {
        for nth in 0..10 {
            let response = ask(lane.plain(), get("/pair"))?;
            want!(response.ok(), "200 each time", "{response} as number {nth}");
        }
        Ok(())
    });
    group.add(Correctness, "RFC 9110 9.2.2", "refused-connection-goes-to-another-for-post-too", |lane| {
        for nth in 0..10 {
            let response = ask(lane.plain(), message("POST /pair HTTP/1.1", "Content-Length: 2", "hi"))?;
            want!(response.ok(), "200 each time: nothing was sent", "{response} as number {nth}");
        }
        let seen = lane.origins.second.count();
        want!(seen == 10, "each once", "{seen}");
        Ok(())
    });
    group.add(Correctness, "RFC 9110 15.6.3", "all-refused", |lane| {
        let began = Instant::now();
        let response = ask(lane.plain(), get("/dead"))?;
        want!(matches!(response.status, 502 | 503), "502", "{response}");
        want!(began.elapsed() < SECOND * 4, "soon", "{:?}", began.elapsed());
        Ok(())
    });
    group.add(Courtesy, "RFC 9110 15.6.3", "all-refused-is-told-at-once", |lane| {
        let began = Instant::now();
        let response = ask(lane.plain(), get("/dead"))?;
        want!(began.elapsed() < SECOND / 2, "within half a second", "{response} after {:?}", began.elapsed());
        Ok(())
    });
    group.add(Correctness, "RFC 9110 9.2.2", "get-on-a-closed-pooled-connection", |lane| {
        lane.main().answers(then_closes);
        for nth in 0..100 {
            let response = ask(lane.plain(), get("/c"))?;
            want!(response.ok(), "200 a hundred times", "{response} as number {nth}");
        }
        Ok(())
    });
    group.add(Safety, "RFC 9110 9.2.2", "post-on-a-closed-pooled-connection-is-never-doubled", |lane| {
        lane.main().answers(then_closes);
        for nth in 0..100 {
            let body = format!("{nth:05}");
            ask(lane.plain(), message("POST /c HTTP/1.1", "Content-Length: 5", &body))?;
        }
        let mut seen: Vec<_> = lane.main().requests().into_iter().filter(|it| it.whole).map(|it| it.body).collect();
        let all = seen.len();
        seen.sort();
        seen.dedup();
        want!(seen.len() == all, "each at most once", "{} of {all}", seen.len());
        Ok(())
    });
    group.add(Correctness, "RFC 9112 9.3.1", "post-on-a-closed-pooled-connection-is-not-lost", |lane| {
        lane.main().answers(then_closes);
        let client = lane.client()?;
        drop(client);
        for nth in 0..100 {
            let response = ask(lane.plain(), message("POST /c HTTP/1.1", "Content-Length: 5", "hello"))?;
            want!(response.ok(), "200 a hundred times", "{response} as number {nth}");
        }
        Ok(())
    });
    group.add(Correctness, "RFC 9110 9.2.2", "get-on-a-pooled-connection-that-resets", |lane| {
        let answered = Arc::new(AtomicUsize::new(0));
        lane.main().answers(move |it| answers_once(it, &answered));
        for nth in 0..30 {
            let response = ask(lane.plain(), get("/c"))?;
            want!(response.ok(), "200 thirty times", "{response} as number {nth}");
        }
        Ok(())
    });
    group.add(Safety, "RFC 9110 9.2.2", "post-on-a-pooled-connection-that-resets-is-never-doubled", |lane| {
        let answered = Arc::new(AtomicUsize::new(0));
        lane.main().answers(move |it| answers_once(it, &answered));
        for nth in 0..20 {
            let body = format!("{nth:05}");
            ask(lane.plain(), message("POST /c HTTP/1.1", "Content-Length: 5", &body))?;
        }
        let mut seen: Vec<_> = lane.main().requests().into_iter().filter(|it| it.whole).map(|it| it.body).collect();
        let all = seen.len();
        seen.sort();
        seen.dedup();
        want!(seen.len() == all, "each at most once", "{} of {all}", seen.len());
        Ok(())
    });
    group.add(Courtesy, "RFC 9112 9.3.1", "post-on-a-pooled-connection-that-resets-is-not-lost", |lane| {
        let answered = Arc::new(AtomicUsize::new(0));
        lane.main().answers(move |it| answers_once(it, &answered));
        for nth in 0..20 {
            let response = ask(lane.plain(), message("POST /c HTTP/1.1", "Content-Length: 5", "hello"))?;
            want!(response.ok(), "200: such a request gets a fresh connection", "{response} as number {nth}");
        }
        Ok(())
    });
    for (name, bytes) in [
        ("length", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        ("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
    ] {
        group.add(Safety, "RFC 9110 9.2.2", format!("no-second-try-once-the-answer-began-{name}"), move |lane| {
            lane.main().answers(move |it| {
                it.read_body();
                it.send(bytes);
                std::thread::sleep(Duration::from_millis(50));
                Then::Reset
            });
            let response = ask(lane.plain(), get("/c"))?;
            want!(!response.ok(), "a response that breaks off", "{response}");
            want!(response.body.len() <= 4, "half of one answer", "{}", crate::bytes::show(&response.body));
            Ok(())
        });
    }
    group.add(Correctness, "de facto", "tries-are-limited", |lane| {
        lane.main().answers(|it| {
            it.read_body();
            Then::Reset
        });
        let response = ask(lane.plain(), get("/c"))?;
        let tries = lane.main().count();
        want!(response.status >= 500, "502", "{response}");
        want!((1..=4).contains(&tries), "one try and two more at most", "{tries}");
        Ok(())
    });
    group.add(Safety, "RFC 9110 9.2.2", "post-that-was-read-is-not-tried-again", |lane| {
        for origin in &lane.origins.two {
            origin.answers(|it| {
                it.read_body();
                Then::Reset
            });
        }
        let response = ask(lane.plain(), message("POST /two HTTP/1.1", "Content-Length: 2", "hi"))?;
        let tries = lane.origins.two[0].count() + lane.origins.two[1].count();
        want!(tries == 1, "one try", "{tries}, {response}");
        Ok(())
    });
    group.add(Courtesy, "de facto", "get-that-was-reset-goes-to-another", |lane| {
        lane.origins.two[0].answers(|it| {
            it.read_body();
            Then::Reset
        });
        for nth in 0..6 {
            let response = ask(lane.plain(), get("/two"))?;
            want!(response.ok(), "200 each time", "{response} as number {nth}");
        }
        Ok(())
    });
    for (name, bytes) in [("500", Some(500)), ("reset", None)] {
        group
            .add(Correctness, "de facto", format!("one-that-keeps-failing-is-left-out-{name}"), move |lane| {
                lane.origins.flaky[0].answers(move |it| {
                    it.read_body();
                    match bytes {
                        Some(status) => drop(it.send(answer(status, "no"))),
                        None => return Then::Reset,
                    }
                    Then::Keep
                });
                for _ in 0..60 {
                    ask(lane.plain(), get("/flaky"))?;
                }
                let before = lane.origins.flaky[0].count();
                for _ in 0..20 {
                    let response = ask(lane.plain(), get("/flaky"))?;
                    want!(response.ok(), "200 from the other", "{response}");
                }
                let after = lane.origins.flaky[0].count();
                want!(after == before, "nothing more to the one that failed", "{} of 20", after - before);
                Ok(())
            })
            .needs(Need::Outlier)
            .fresh();
    }
    group
        .add(Correctness, "de facto", "unhealthy-one-is-left-out", |lane| {
            let sick = Arc::new(std::sync::atomic::AtomicBool::new(true));
            let told = sick.clone();
            lane.origins.checked[0].answers(move |it| {
                it.read_body();
                let bad = told.load(Ordering::SeqCst) && it.request.target == "/health";
                it.send(answer(if bad { 500 } else { 200 }, "ok"));
                Then::Keep
            });
            let traffic = || lane.origins.checked[0].requests().iter().filter(|it| it.target == "/checked").count();
            let asked = lane.origins.checked[0]
                .until(SECOND * 3, |it| it.iter().filter(|it| it.target == "/health").count() >= 3);
            want!(asked, "a question for its health each half second", "{} requests", lane.origins.checked[0].count());
            std::thread::sleep(Duration::from_millis(100));
            let before = traffic();
            for _ in 0..10 {
                let response = ask(lane.plain(), get("/checked"))?;
                want!(response.ok(), "200 from the healthy one", "{response}");
            }
            want!(traffic() == before, "nothing to the unhealthy one", "{}", traffic() - before);
            sick.store(false, Ordering::SeqCst);
            let until = Instant::now() + SECOND * 4;
            while traffic() == before && Instant::now() < until {
                ask(lane.plain(), get("/checked"))?;
                std::thread::sleep(Duration::from_millis(20));
            }
            want!(traffic() > before, "requests again once it is well", "none");
            Ok(())
        })
        .needs(Need::HealthCheck)
        .fresh();
    group
        .add(Correctness, "RFC 9110 15.6.4", "too-many-at-once-are-refused-promptly", |lane| {
            let gate = Gate::default();
            let their = gate.clone();
            lane.main().answers(move |it| {
                it.read_body();
                if it.request.target == "/hold" {
                    their.pass(SECOND * 3 / 2);
                }
                it.send(answer(200, "ok"));
                Then::Close
            });
            let mut held = Vec::new();
            for _ in 0..64 {
                let mut client = lane.client()?;
                client.send(get("/hold"));
                held.push(client);
            }
            lane.main().until(SECOND, |it| it.len() >= 64);
            let there = lane.main().count();
            let began = Instant::now();
            let response = ask(lane.plain(), get("/c"))?;
            let took = began.elapsed();
            (0..64).for_each(|_| gate.open());
            want!(there == 64, "64 at the endpoint", "{there}");
            want!(response.status == 503, "503", "{response}");
            want!(took < Duration::from_millis(600), "at once", "after {took:?}");
            let all = held.iter_mut().map(|it| it.response()).filter(Response::ok).count();
            want!(all == 64, "200 for those that were let in", "{all} of 64");
            let next = ask(lane.plain(), get("/c"))?;
            want!(next.ok(), "200 when they are done", "{next}");
            Ok(())
        })
        .needs(Need::InFlight);
    group
        .add(Correctness, "RFC 9112 9.3", "connections-to-the-endpoint-are-reused", |lane| {
            for _ in 0..20 {
                ask(lane.plain(), get("/c"))?;
            }
            let seen = lane.main().connections();
            want!(seen <= 6, "a few connections for twenty requests", "{seen}");
            Ok(())
        })
        .severity(Courtesy);
}
