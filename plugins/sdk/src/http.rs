//! What filters share of HTTP: answers of their own, names that the configuration gives to headers, and where cookies and
//! query parameters are in a request.

use crate::Reply;
use std::borrow::Cow;

impl Reply {
    /// An answer of one line of text, which says to the client why.
    pub fn text(status: u16, line: &str) -> Self {
        let headers = vec![("content-type".into(), "text/plain; charset=utf-8".into())];
        Self { status, headers, body: [line, "\n"].concat().into_bytes() }
    }

    /// The same with one header more. Name and value must be such as HTTP allows.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// "Who are you?": 401 with a challenge (RFC 9110, section 11.6.1), which nobody may keep.
    pub fn unauthorized(challenge: &str, line: &str) -> Self {
        Self::text(401, line).with("www-authenticate", challenge).with("cache-control", "no-store")
    }
}

/// What the gateway answers for itself, and so refuses to have written by a plugin.
const MANAGED: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a plugin may write a header of this name, which stands at `key` of the options.
///
/// # Errors
/// If it is no header's name, or one that the gateway answers for.
pub fn check_header_name(key: &str, name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("`{key}` is empty: it must be a header's name, such as `x-env`"));
    }
    if !name.bytes().all(is_token) {
        return Err(format!("`{key}` is `{name}`, which is no header's name: letters, digits and - _ . only"));
    }
    if MANAGED.iter().any(|managed| name.eq_ignore_ascii_case(managed)) {
        return Err(format!("`{key}` is `{name}`, a header that the gateway itself answers for"));
    }
    Ok(())
}

/// Whether this can be a header's value; it stands at `key` of the options.
///
/// # Errors
/// If it has a line break or another control character in it.
pub fn check_header_value(key: &str, value: &str) -> Result<(), String> {
    if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(format!("`{key}` has a line break or another control character in it"));
    }
    Ok(())
}

/// Text as a quoted string (RFC 9110, section 5.6.4), such as the realm of a challenge.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted + "\""
}

/// Whether a header's name is `of`, or is it where `_` counts as `-`; of either case.
pub(crate) fn look_alike(name: &str, of: &str) -> bool {
    let folded = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.bytes().map(folded).eq(of.bytes().map(folded))
}

/// Path and query of a request target; the query without its `?`, none if there is no `?`.
pub fn split_target(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// A query's name or value with `%XX` and `+` decoded, as forms have it (WHATWG URL, `application/x-www-form-urlencoded`).
/// A `%` without two digits stays; what is not UTF-8 becomes U+FFFD.
pub fn form_decoded(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Cow::Borrowed(text);
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| Some((digit(bytes.get(at + 1))?, digit(bytes.get(at + 2))?)));
        match escape.flatten() {
            Some((high, low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 2;
            }
            None => decoded.push(if bytes[at] == b'+' { b' ' } else { bytes[at] }),
        }
        at += 1;
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

/// Whether a `name=value` of a query has this name, once it is decoded.
pub fn is_parameter(pair: &str, name: &str) -> bool {
    form_decoded(pair.split('=').next().unwrap_or_default()) == name
}

/// The values of a query parameter, decoded, in their order; that of a name without `=` is empty.
pub fn query_values<'a>(target: &'a str, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
    let pairs = split_target(target).1.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.filter(move |pair| is_parameter(pair, name)).map(|pair| {
        let (_, value) = pair.split_once('=').unwrap_or_default();
        form_decoded(value)
    })
}

/// The target without a query parameter, and without the `?` if nothing else was asked.
pub fn without_parameter(target: &str, name: &str) -> String {
    let (path, query) = split_target(target);
    let others: Vec<&str> = query.unwrap_or_default().split('&').filter(|pair| !is_parameter(pair, name)).collect();
    let others = others.join("&");
    if others.is_empty() { path.to_owned() } else { [path, "?", &others].concat() }
}

/// The values of a cookie in a `cookie` header (RFC 6265, section 4.2.1), in their order.
pub fn cookie_values<'a>(cookies: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    cookies.split(';').filter_map(move |pair| pair.trim_ascii().strip_prefix(name)?.strip_prefix('='))
}

/// The `cookie` header without a cookie; empty if there was no other.
pub fn without_cookie(cookies: &str, name: &str) -> String {
    let pairs = cookies.split(';').map(str::trim_ascii).filter(|pair| !pair.is_empty());
    let others: Vec<&str> = pairs.filter(|pair| pair.split('=').next() != Some(name)).collect();
    others.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_it_is() {
        let reply = Reply::unauthorized("Basic realm=\"a\"", "who are you?");
        assert_eq!((reply.status, &reply.body[..]), (401, &b"who are you?\n"[..]));
        let value = |name: &str| reply.headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str());
        assert_eq!(value("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(value("www-authenticate"), Some("Basic realm=\"a\""));
        assert_eq!(value("cache-control"), Some("no-store"));
    }

    #[test]
    fn names_that_cannot_be_written_are_refused_with_their_key() {
        assert_eq!(check_header_name("user_header", "X-User"), Ok(()));
        for (name, words) in [("", "is empty"), ("x y", "no header's name"), ("Upgrade", "gateway itself answers for")]
        {
            let error = check_header_name("user_header", name).unwrap_err();
            assert!(error.starts_with("`user_header` ") && error.contains(words), "{error}");
        }
        assert_eq!(check_header_value("value", "a\tb"), Ok(()));
        assert!(check_header_value("value", "a\r\nb: c").unwrap_err().contains("control character"));
    }

    #[test]
    fn look_alikes_are_known_in_any_spelling() {
        for name in ["x-user-id", "X_User-Id", "x_user_id"] {
            assert!(look_alike(name, "x-user-id"), "{name}");
        }
        for name in ["x-user", "x-user-ids", "xuserid"] {
            assert!(!look_alike(name, "x-user-id"), "{name}");
        }
    }

    #[test]
    fn a_quoted_string_escapes_what_would_end_it() {
        assert_eq!(quoted(r#"a "b" \c"#), r#""a \"b\" \\c""#);
    }

    #[test]
    fn query_parameters_are_found_by_their_decoded_name() {
        let values = |target, name| query_values(target, name).collect::<Vec<_>>();
        assert_eq!(values("/?a=1&b=2&%61=x%20y+z&ab=3&a", "a"), ["1", "x y z", ""]);
        assert_eq!(values("/a=1", "a"), [""; 0]);
        assert_eq!(values("/?", ""), [""; 0]);
        assert_eq!(form_decoded("%zz%4%C3%A4%ff"), "%zz%4ä\u{fffd}");
    }

    #[test]
    fn a_parameter_is_taken_out_in_every_spelling() {
        assert_eq!(without_parameter("/p?a=1&b=2&%61=3", "a"), "/p?b=2");
        assert_eq!(without_parameter("/p?a=1", "a"), "/p");
        assert_eq!(without_parameter("/p", "a"), "/p");
    }

    #[test]
    fn cookies_are_found_and_taken_out_by_whole_name() {
        assert_eq!(cookie_values("id=a; idx=b;id=c=d", "id").collect::<Vec<_>>(), ["a", "c=d"]);
        assert_eq!(cookie_values("", "id").next(), None);
        assert_eq!(without_cookie("id=a; idx=b;id=c", "id"), "idx=b");
        assert_eq!(without_cookie("id=a", "id"), "");
    }
}
