//! Floods of HTTP/2: little to send, much to do, for the one who does not look out.

use std::time::{Duration, Instant};

use super::limits::others_are_served;
use crate::case::{Failure, Group, Outcome, Severity::*, want};
use crate::h2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, H2, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    frame, settings_payload,
};
use crate::h2client::{head, head_with, open, open_with};
use crate::hpack::{bomb, encode};
use crate::lane::Lane;
use crate::origin::{Then, answer};
use crate::stream::Broken;

const SECOND: Duration = Duration::from_secs(1);

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, encode(&head("GET", "/c")))
}

/// What a flood came to.
struct Toll {
    /// How many of its rounds were sent before the gateway ended it.
    sent: usize,
    ended: bool,
    memory: u64,
    cpu: Duration,
}

impl Toll {
    /// Whether the gateway ends it, if not yet, then soon: what was sent may still lie in the sockets' buffers, unread. A
    /// GOAWAY without an error is that of an idle connection.
    fn is_cut(&self, h2: &mut H2) -> bool {
        h2.patience = SECOND * 5;
        self.ended || (h2.end().is_some() && h2.goaway.is_none_or(|(_, code)| code != 0))
    }
}

/// Sends round after round for up to two seconds, reading what comes back unless told not to.
fn flood(lane: &Lane, h2: &mut H2, rounds: usize, read: bool, round: impl Fn(usize) -> Vec<u8>) -> Toll {
    let (memory, cpu, began) = (lane.memory(), lane.cpu(), Instant::now());
    let (mut sent, mut most, mut ended) = (0, 0, false);
    while sent < rounds && began.elapsed() < SECOND * 2 && !ended {
        if !h2.reader.send(&round(sent)) {
            ended = true;
            break;
        }
        sent += 1;
        while read && !ended {
            match h2.step(Instant::now() + Duration::from_micros(50)) {
                Ok(_) => {}
                Err(Broken::Ended(_)) => ended = true,
                Err(_) => break,
            }
        }
        ended |= h2.goaway.is_some();
        if sent % 16 == 0 {
            most = most.max(lane.memory().saturating_sub(memory));
        }
    }
    most = most.max(lane.memory().saturating_sub(memory));
    Toll { sent, ended, memory: most >> 20, cpu: lane.cpu().saturating_sub(cpu) }
}

/// Ended, or without harm: others are served, memory is bounded.
fn harmless(lane: &Lane, toll: &Toll) -> Outcome {
    others_are_served(lane)?;
    want!(toll.memory < 24, "less than 24 MiB more", "{} MiB after {} rounds", toll.memory, toll.sent);
    Ok(())
}

fn cheap(group: &mut Group) {
    // (name, reference, one round, whether answers are read)
    type Round = fn(usize) -> Vec<u8>;
    let floods: [(&str, &'static str, bool, Round); 9] = [
        ("settings", "CVE-2019-9515", false, |_| frame(SETTINGS, 0, 0, settings_payload(&[(4, 65_535)])).repeat(100)),
        ("settings-empty", "CVE-2019-9515", true, |_| frame(SETTINGS, 0, 0, []).repeat(100)),
        ("ping", "CVE-2019-9512", false, |_| frame(PING, 0, 0, [1; 8]).repeat(100)),
        ("ping-acknowledged", "CVE-2019-9512", true, |_| frame(PING, ACK, 0, [1; 8]).repeat(100)),
        ("priority", "CVE-2019-9513", true, |nth| frame(PRIORITY, 0, nth as u32 * 2 + 1, [0, 0, 0, 0, 16]).repeat(100)),
        ("window-update", "CVE-2019-9511", true, |_| frame(WINDOW_UPDATE, 0, 0, [0, 0, 0, 1]).repeat(100)),
        ("unknown-frames", "RFC 9113 10.5", true, |_| frame(0x77, 0, 0, [0; 16]).repeat(100)),
        ("empty-unknown-frames", "RFC 9113 10.5", true, |_| frame(0x77, 0, 0, []).repeat(100)),
        ("resets-of-closed-streams", "RFC 9113 10.5", true, |_| frame(RST_STREAM, 0, 1, [0, 0, 0, 8]).repeat(100)),
    ];
    for (name, reference, read, round) in floods {
        group
            .add(Safety, reference, format!("flood-of-{name}"), move |lane| {
                let mut h2 = open(lane)?;
                h2.reader.send(&get(1));
                h2.answer(1);
                let toll = flood(lane, &mut h2, 2000, read, round);
                harmless(lane, &toll)
            })
            .heavy();
        // 200,000 frames that do nothing are no conversation.
        group
            .add(Courtesy, reference, format!("flood-of-{name}-is-cut"), move |lane| {
                let mut h2 = open(lane)?;
                h2.reader.send(&get(1));
                h2.answer(1);
                let toll = flood(lane, &mut h2, 2000, read, round);
                // Not reading ends it by itself, once nothing more can be written; what is read has to be counted.
                want!(
                    toll.sent < 2000 || toll.is_cut(&mut h2),
                    "an end to it",
                    "{} frames taken, {:?} of processor",
                    toll.sent * 100,
                    toll.cpu
                );
                Ok(())
            })
            .heavy();
    }
}

fn on_a_stream(group: &mut Group) {
    for (name, reference, payload, flags) in
        [("empty-data", "CVE-2019-9518", &b""[..], 0), ("padded-data", "CVE-2019-9518", b"\x05\0\0\0\0\0", 8)]
    {
        group
            .add(Safety, reference, format!("flood-of-{name}"), move |lane| {
                let mut h2 = open(lane)?;
                h2.headers(1, &head("POST", "/c"), false);
                let piece = frame(DATA, flags, 1, payload).repeat(100);
                let toll = flood(lane, &mut h2, 2000, true, |_| piece.clone());
                harmless(lane, &toll)
            })
            .heavy();
        group
            .add(Courtesy, reference, format!("flood-of-{name}-is-cut"), move |lane| {
                let mut h2 = open(lane)?;
                h2.headers(1, &head("POST", "/c"), false);
                let piece = frame(DATA, flags, 1, payload).repeat(100);
                let toll = flood(lane, &mut h2, 2000, true, |_| piece.clone());
                let over = h2.message(1).reset.is_some() || h2.message(1).status() >= 400 || toll.is_cut(&mut h2);
                want!(over, "an end to it", "{} frames taken", toll.sent * 100);
                Ok(())
            })
            .heavy();
    }
    type Fault = fn(u32) -> Vec<u8>;
    let faults: [(&str, &'static str, Fault); 2] = [
        ("rapid-reset", "CVE-2023-44487", |stream| frame(RST_STREAM, 0, stream, [0, 0, 0, 8])),
        // The gateway has to reset each stream itself: a window of zero more is an error of the stream.
        ("made-you-reset", "CVE-2025-8671", |stream| frame(WINDOW_UPDATE, 0, stream, [0; 4])),
    ];
    for (name, reference, fault) in faults {
        let resets = move |lane: &Lane| -> Result<(Toll, H2), Failure> {
            lane.main().answers(|it| {
                std::thread::sleep(Duration::from_millis(20));
                it.read_body();
                it.send(answer(200, "ok"));
                Then::Keep
            });
            let mut h2 = open(lane)?;
            let toll = flood(lane, &mut h2, 100, true, |nth| {
                let streams = (0..50).map(|it| (nth * 50 + it) as u32 * 2 + 1);
                streams.flat_map(|it| [get(it), fault(it)].concat()).collect()
            });
            Ok((toll, h2))
        };
        group
            .add(Safety, reference, name, move |lane| {
                let (toll, _open) = resets(lane)?;
                let reached = lane.main().count();
                want!(reached < 2500, "most of it not brought to the endpoint", "{reached} of {}", toll.sent * 50);
                harmless(lane, &toll)
            })
            .heavy();
        group
            .add(Correctness, reference, format!("{name}-is-cut"), move |lane| {
                let (toll, mut h2) = resets(lane)?;
                want!(
                    toll.is_cut(&mut h2),
                    "an end to it",
                    "{} resets taken, {:?} of processor",
                    toll.sent * 50,
                    toll.cpu
                );
                Ok(())
            })
            .heavy();
    }
    group
        .add(Safety, "CVE-2024-27316", "continuation-flood", |lane| {
            let mut h2 = open(lane)?;
            h2.frame(HEADERS, END_STREAM, 1, encode(&head("GET", "/c")));
            let piece = frame(CONTINUATION, 0, 1, encode(&[("x", &"y".repeat(8000))]));
            let toll = flood(lane, &mut h2, 2000, true, |_| piece.clone());
            harmless(lane, &toll)?;
            let over = h2.message(1).reset.is_some() || h2.message(1).status() >= 400 || toll.is_cut(&mut h2);
            want!(over, "an end to it", "{} CONTINUATIONs taken", toll.sent);
            Ok(())
        })
        .heavy();
    group
        .add(Correctness, "CVE-2024-27316", "continuation-flood-of-empty-frames", |lane| {
            let mut h2 = open(lane)?;
            h2.frame(HEADERS, END_STREAM, 1, encode(&head("GET", "/c")));
            let piece = frame(CONTINUATION, 0, 1, []).repeat(100);
            let toll = flood(lane, &mut h2, 500, true, |_| piece.clone());
            harmless(lane, &toll)?;
            want!(toll.is_cut(&mut h2), "an end to it", "{} CONTINUATIONs taken", toll.sent * 100);
            Ok(())
        })
        .heavy();
    group.add(Safety, "CVE-2024-27316; slowloris", "head-without-an-end-is-timed-out", |lane| {
        let mut h2 = open(lane)?;
        h2.patience = SECOND * 5;
        h2.frame(HEADERS, END_STREAM, 1, encode(&head("GET", "/c")));
        let began = Instant::now();
        let message = h2.answer(1);
        want!(
            message.refused() && began.elapsed() < SECOND * 4,
            "an end after a second or so",
            "{message} after {:?}",
            began.elapsed()
        );
        Ok(())
    });
    group.add(Safety, "slowloris", "body-that-stops-is-timed-out", |lane| {
        let mut h2 = open(lane)?;
        h2.patience = SECOND * 6;
        h2.headers(1, &head("POST", "/c"), false);
        h2.data(1, "begin", false);
        let message = h2.answer(1);
        want!(message.refused(), "an end after two seconds or so", "{message}");
        Ok(())
    });
    group.add(Safety, "slowloris", "preface-that-stops-is-timed-out", |lane| {
        let mut h2 = crate::h2client::raw(lane.h2())?;
        h2.reader.send(b"PRI * HTTP/2.0\r\n\r\nSM");
        h2.patience = SECOND * 5;
        want!(h2.end().is_some(), "an end after a second or so", "none");
        Ok(())
    });
    for (name, fields) in [("one-field-of-20k", 1), ("fields-of-40k-together", 40)] {
        group.add(Correctness, "RFC 9113 10.5.1", format!("head-with-{name}"), move |lane| {
            let mut h2 = open(lane)?;
            let long = "y".repeat(if fields == 1 { 20 << 10 } else { 1000 });
            let block = encode(&head_with("GET", "/c", &vec![("x", long.as_str()); fields]));
            let pieces: Vec<&[u8]> = block.chunks(16_000).collect();
            for (nth, piece) in pieces.iter().enumerate() {
                let (kind, mut flags) = if nth == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
                flags |= if nth + 1 == pieces.len() { END_HEADERS } else { 0 };
                h2.frame(kind, flags, 1, piece);
            }
            let message = h2.answer(1);
            want!(message.refused(), "431, or a reset", "{message}");
            want!(lane.main().count() == 0, "nothing at the endpoint", "a request");
            Ok(())
        });
    }
    group
        .add(Safety, "CVE-2016-6581", "compression-bomb", |lane| {
            let mut h2 = open(lane)?;
            let block = [encode(&head("GET", "/c")), bomb(b"x", &[b'y'; 3900], 4000)].concat();
            let streams = (0..8).map(|it| it * 2 + 1);
            let frames: Vec<u8> = streams.flat_map(|it| frame(HEADERS, END_HEADERS | END_STREAM, it, &block)).collect();
            let toll = flood(lane, &mut h2, 1, true, |_| frames.clone());
            let message = h2.answer(1);
            want!(message.refused() && lane.main().count() == 0, "refused", "{message}");
            harmless(lane, &toll)?;
            Ok(())
        })
        .heavy();
}

fn many(group: &mut Group) {
    group.add(Correctness, "RFC 9113 5.1.2", "more-streams-than-allowed", |lane| {
        lane.main().answers(|it| {
            it.read_body();
            std::thread::sleep(Duration::from_millis(400));
            it.send(answer(200, "ok"));
            Then::Keep
        });
        let mut h2 = open(lane)?;
        let announced = h2.settings.get(&3).copied();
        want!(announced.is_some_and(|it| it <= 250), "SETTINGS_MAX_CONCURRENT_STREAMS, as it is set", "{announced:?}");
        // Bodies that do not end hold the streams open without requests in flight to count.
        let count = announced.unwrap_or(100) + 20;
        for nth in 0..count {
            h2.headers(nth * 2 + 1, &head("POST", "/c"), false);
        }
        let last = h2.answer_until((count - 1) * 2 + 1, |it| it.reset.is_some());
        want!(last.refused(), "the streams above it refused", "{last}");
        Ok(())
    });
    group
        .add(Safety, "RFC 9113 10.5", "zero-windows-hold-little-memory", |lane| {
            lane.main().says(answer(200, &"x".repeat(4 << 20)), Then::Close);
            let before = lane.memory();
            let mut h2 = open_with(lane, &[(4, 0)])?;
            h2.generous = false;
            for nth in 0..50u32 {
                h2.headers(nth * 2 + 1, &head("GET", "/c"), true);
            }
            h2.patience = SECOND;
            let _ = h2.end();
            let grown = lane.memory().saturating_sub(before) >> 20;
            want!(grown < 16, "less than 16 MiB for fifty answers", "{grown} MiB");
            others_are_served(lane)
        })
        .heavy();
    group.add(Safety, "RFC 9113 10.5; slow read", "zero-window-is-timed-out", |lane| {
        lane.main().answers(|it| {
            it.read_body();
            it.send(answer(200, &"x".repeat(4 << 20)));
            Then::Close
        });
        let mut h2 = open_with(lane, &[(4, 0)])?;
        h2.generous = false;
        h2.headers(1, &head("GET", "/c"), true);
        h2.patience = SECOND * 7;
        let message = h2.answer(1);
        want!(message.reset.is_some() || message.lost.is_some(), "ended after two seconds or so", "{message}");
        Ok(())
    });
    group
        .add(Safety, "CVE-2019-9517", "answers-to-one-that-does-not-read", |lane| {
            lane.main().says(answer(200, &"x".repeat(1 << 20)), Then::Close);
            // Windows wide open, but the connection is never read.
            let mut h2 = open_with(lane, &[(4, 0x7fff_0000)])?;
            h2.frame(WINDOW_UPDATE, 0, 0, 0x7fff_0000u32.to_be_bytes());
            let before = lane.memory();
            for nth in 0..60u32 {
                h2.headers(nth * 2 + 1, &head("GET", "/c"), true);
            }
            std::thread::sleep(Duration::from_millis(1200));
            let grown = lane.memory().saturating_sub(before) >> 20;
            want!(grown < 16, "less than 16 MiB for sixty answers", "{grown} MiB");
            others_are_served(lane)
        })
        .heavy();
}

pub(super) fn fill(group: &mut Group) {
    cheap(group);
    on_a_stream(group);
    many(group);
}
