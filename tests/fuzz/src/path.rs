//! The path policy: what comes out is clean, stays as it is, and is what a slow and plain reading makes of it.

use moongate::message::path::{DoubleSlashes, EncodedSlashes, Policy};

use super::choice;

/// One digit for the policy, then the request target.
pub fn path(data: &[u8]) {
    let (chosen, target) = choice(data, 6);
    let double_slashes = [DoubleSlashes::Merge, DoubleSlashes::Keep, DoubleSlashes::Refuse][chosen % 3];
    let encoded_slashes = [EncodedSlashes::Refuse, EncodedSlashes::Keep][chosen / 3];
    let policy = Policy { double_slashes, encoded_slashes };
    let read = policy.read(target);
    assert_eq!(read.as_ref().ok().map(|it| it.as_str().to_owned()), plainly(policy, target), "{policy:?}");
    let Ok(read) = read else { return };
    assert!(!segments(read.path()).iter().any(|it| it == "." || it == ".."), "{read:?}");
    assert_eq!(read.query(), read.as_str().split_once('?').map(|it| it.1));
    assert_eq!(policy.read(read.as_str().as_bytes()).as_ref(), Ok(&read), "twice is not the same as once");
}

/// The rules, one after the other.
fn plainly(policy: Policy, target: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(target).ok()?;
    let good = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if !text.starts_with('/') || !text.bytes().all(good) {
        return None;
    }
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    if path.contains('\\') {
        return None;
    }
    let mut pieces = path.split('%');
    let mut out = pieces.next()?.to_owned();
    for piece in pieces {
        let digits = piece.get(..2).filter(|it| it.bytes().all(|it| it.is_ascii_hexdigit()))?;
        match u8::from_str_radix(digits, 16).ok()? {
            0 => return None,
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(char::from(byte)),
            b'/' | b'\\' if policy.encoded_slashes == EncodedSlashes::Refuse => return None,
            _ => out.push_str(&format!("%{}", digits.to_ascii_uppercase())),
        }
        out.push_str(&piece[2..]);
    }
    while policy.double_slashes == DoubleSlashes::Merge && out.contains("//") {
        out = out.replace("//", "/");
    }
    if policy.double_slashes == DoubleSlashes::Refuse && out.contains("//") {
        return None;
    }
    if segments(&out).iter().any(|it| it == "." || it == "..") {
        return None;
    }
    Some(out + &query.map(|it| format!("?{it}")).unwrap_or_default())
}

/// The segments as an endpoint might see them that decodes once, takes every slash for one and drops parameters.
fn segments(path: &str) -> Vec<String> {
    let mut decoded = Vec::new();
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        decoded.extend_from_slice(&rest.as_bytes()[..at]);
        decoded.push(u8::from_str_radix(&rest[at + 1..at + 3], 16).unwrap());
        rest = &rest[at + 3..];
    }
    decoded.extend_from_slice(rest.as_bytes());
    let decoded = String::from_utf8_lossy(&decoded);
    decoded.split(['/', '\\']).map(|it| it.split(';').next().unwrap_or_default().to_owned()).collect()
}
