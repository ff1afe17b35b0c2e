//! Sets a header on each request and each response of its route.

wit_bindgen::generate!({ path: "wit", world: "filter-plugin" });

use exports::moongate::plugin::configurable::Guest as Configurable;
use exports::moongate::plugin::request_filter::{Guest as RequestFilter, Verdict};
use exports::moongate::plugin::response_filter::Guest as ResponseFilter;
use moongate::plugin::{request, response};
use std::cell::RefCell;
use std::collections::HashMap;

/// What the operator writes; an unknown key is an error that names it.
#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    name: String,
    value: String,
}

thread_local! {
    /// The header of each binding: one configured use of the plugin.
    static BINDINGS: RefCell<HashMap<u32, Header>> = RefCell::default();
}

struct MyPlugin;

impl Configurable for MyPlugin {
    fn configure(binding: u32, config: String) -> Result<(), String> {
        let header = header(&config)?;
        BINDINGS.with_borrow_mut(|all| all.insert(binding, header));
        Ok(())
    }
}

impl RequestFilter for MyPlugin {
    fn on_request(binding: u32) -> Verdict {
        BINDINGS.with_borrow(|all| request::set(&all[&binding].name, &all[&binding].value));
        Verdict::Next
    }
}

impl ResponseFilter for MyPlugin {
    fn on_response(binding: u32) -> Verdict {
        BINDINGS.with_borrow(|all| response::set(&all[&binding].name, &all[&binding].value));
        Verdict::Next
    }
}

fn header(config: &str) -> Result<Header, String> {
    /// RFC 9110, 5.6.2: what a header's name is made of.
    fn is_token(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
    }
    /// What the gateway answers for itself, and so does not let a plugin write.
    const RESERVED: [&str; 7] =
        ["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

    let header: Header = serde_json::from_str(config).map_err(|error| error.to_string())?;
    if header.name.is_empty() || !header.name.bytes().all(is_token) {
        return Err("`name` must be a header's name, such as `x-env`".into());
    }
    if RESERVED.iter().any(|reserved| header.name.eq_ignore_ascii_case(reserved)) {
        return Err("`name` is a header that the gateway itself answers for".into());
    }
    // RFC 9110, 5.5.
    if header.value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Err("`value` has a line break or another control character in it".into());
    }
    Ok(header)
}

export!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_http_allows_is_taken_as_it_is() {
        let expected = Header { name: "x-env".into(), value: "say \"hi\"\t".into() };
        assert_eq!(header(r#"{"name":"x-env","value":"say \"hi\"\t"}"#), Ok(expected));
        assert_eq!(header(r#"{"name":"x-empty","value":""}"#).unwrap().value, "");
    }

    #[test]
    fn mistakes_are_named() {
        for (config, words) in [
            (r#"{"value":"a"}"#, "missing field `name`"),
            (r#"{"name":"x"}"#, "missing field `value`"),
            (r#"{"nme":"x"}"#, "unknown field `nme`"),
            (r#"{"name":"x","value":1}"#, "expected a string"),
            (r#"{"name":"x y","value":"a"}"#, "`name` must be"),
            (r#"{"name":"","value":"a"}"#, "`name` must be"),
            (r#"{"name":"Content-Length","value":"1"}"#, "the gateway itself answers for"),
            (r#"{"name":"x","value":"a\r\nb: c"}"#, "control character"),
        ] {
            let error = header(config).unwrap_err();
            assert!(error.contains(words), "{config}: {error}");
        }
    }
}
