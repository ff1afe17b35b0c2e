//! What SmartStack's Nerve writes: `<zk_path>/<instance>_<number>` with the body `{host, port, name, weight, labels}`.
//! Where it encodes paths, the name is `base64_<length>_<the body in base64>_<number>`, and the body is there too or not.

use super::found::{Found, Host, Object, Value, object, port, string, text, texts};
use super::{Reason, Znode};
use crate::config::Layout;

const ENCODED: &str = "base64_";

/// Whether the name holds a body.
pub(super) fn is_encoded(child: &str) -> bool {
    child.starts_with(ENCODED)
}

/// Whether a body looks like one of these.
pub(super) fn fits(body: &Object<'_>) -> bool {
    body.get("host").is_some_and(Value::is_string) && body.contains_key("port")
}

pub(super) fn read(child: &str, body: Option<&Object<'_>>) -> Result<Znode, Reason> {
    // The name first: it is what Synapse reads, and all that changes with the endpoint.
    let named = decoded(child);
    let named = named.as_deref().and_then(object).filter(fits);
    let body = named.as_ref().or(body).ok_or(Reason::Body)?;
    let mut labels = texts(body, "labels");
    if let Some(weight) = body.get("weight").filter(|weight| !weight.is_null()) {
        labels.set("weight", text(weight));
    }
    let name = string(body, "name");
    if !name.is_empty() {
        labels.add("name", name);
    }
    let port = port(body.get("port")).ok_or(Reason::NoAddress)?;
    Found { host: Host::Written(string(body, "host")), port, scheme: None, labels }.read(Layout::Nerve)
}

/// The body in a name. The length is there because the alphabet has a `_` itself.
fn decoded(child: &str) -> Option<Vec<u8>> {
    let (length, rest) = child.strip_prefix(ENCODED)?.split_once('_')?;
    base64(rest.get(..length.parse().ok()?)?)
}

/// Either alphabet, with or without padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut bits) = (0_u32, 0);
    for byte in text.bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        held = (held << 6) | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{endpoint_of, labels, read_of};
    use super::*;

    const BODY: &str =
        r#"{"host":"10.0.0.9","port":3000,"name":"i-1","weight":7,"labels":{"az":"us-east-1a","r":"x"}}"#;

    #[test]
    fn a_body_as_nerve_writes_it() {
        let read = endpoint_of(Layout::Nerve, "i-1_0000000003", BODY);
        assert_eq!(read.address, "10.0.0.9:3000".parse().unwrap());
        assert_eq!((read.weight, &*read.zone), (7, "us-east-1a"));
        assert_eq!(labels(&read), [("name", "i-1"), ("r", "x")]);
    }

    #[test]
    fn a_name_that_holds_the_body() {
        // {"host":"10.0.0.9","port":3000,"name":"?>~"}
        let encoded = "eyJob3N0IjoiMTAuMC4wLjkiLCJwb3J0IjozMDAwLCJuYW1lIjoiPz5-In0=";
        let child = format!("base64_{}_{encoded}_0000000007", encoded.len());
        for (child, body) in [
            (child.clone(), ""),
            (child.clone(), "garbage"),
            (child.replace('-', "+"), ""),
            (child.clone(), r#"{"host":"10.0.0.1","port":1}"#),
        ] {
            let read = endpoint_of(Layout::Nerve, &child, body);
            assert_eq!(read.address, "10.0.0.9:3000".parse().unwrap());
            assert_eq!(labels(&read), [("name", "?>~")]);
        }
    }

    #[test]
    fn a_name_that_pretends_to() {
        for child in [
            "base64_",
            "base64_4_",
            "base64_9999999999999999999_x",
            "base64_2_\u{e9}",
            "base64_4_e30=_0",
            "base64_x_e30=",
        ] {
            assert_eq!(read_of(Layout::Nerve, child, ""), Err(Reason::Body), "{child}");
            assert_eq!(endpoint_of(Layout::Nerve, child, BODY).weight, 7, "{child}");
        }
    }

    #[test]
    fn base64_is_read() {
        for (text, bytes) in
            [("", ""), ("Zg", "f"), ("Zg==", "f"), ("Zm8", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob")]
        {
            assert_eq!(base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(base64("-_+/"), Some(vec![0xfb, 0xff, 0xbf]));
        assert_eq!(base64("a b"), None);
    }
}
