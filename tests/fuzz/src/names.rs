//! Rules for names: neither case nor underscores get a name past them.

use moongate::message::names::{
    Underscores, Verdict, is_only_from_proxies, may_be_trailer, stays_whatever_connection_says,
};

/// The name of a field.
pub fn names(data: &[u8]) {
    let all = [Underscores::Guard, Underscores::Pass, Underscores::Drop, Underscores::Refuse];
    let [guard, pass, drop, refuse] = all.map(|it| it.judge(data));
    let ours = data.eq_ignore_ascii_case(b"service_name") || data.eq_ignore_ascii_case(b"api_name");
    let marked = data.contains(&b'_') && !ours;
    assert_eq!(pass, Verdict::Pass);
    assert_eq!(drop == Verdict::Drop, marked);
    assert_eq!(refuse == Verdict::Refuse, marked);
    assert!(guard == Verdict::Pass || guard == Verdict::Refuse && marked);

    // What is one name to CGI is one name to us.
    let dashed: Vec<u8> = data.iter().map(|it| if *it == b'_' { b'-' } else { it.to_ascii_lowercase() }).collect();
    assert_eq!(Underscores::Guard.judge(&dashed), Verdict::Pass);
    for rule in [may_be_trailer, stays_whatever_connection_says, is_only_from_proxies] {
        assert_eq!(rule(data), rule(&dashed));
        assert_eq!(rule(&data.to_ascii_uppercase()), rule(&dashed));
    }
    // What only proxies may say, and what a message is framed by, is guarded in every way.
    let framing = [&b"content-length"[..], b"transfer-encoding", b"x-request-id"].contains(&&*dashed);
    if is_only_from_proxies(&dashed) || framing {
        assert_eq!(guard == Verdict::Refuse, marked);
        assert!(!may_be_trailer(data));
    }
    if stays_whatever_connection_says(data) {
        assert!(!may_be_trailer(data));
    }
}
