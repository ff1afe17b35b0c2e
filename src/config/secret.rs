//! What nobody may read: how it is kept out of logs, of `--print` and of the admin API, though one can still tell whether it
//! was changed.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// What is told instead of a secret.
pub const VEIL: &str = "(secret)";

/// A string that is never printed.
#[derive(Clone, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(VEIL)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&print(&self.0))
    }
}

/// Something to tell a secret from another by, as long as this process lives: the key of the hash is random and nowhere else,
/// so that nobody can try out passwords. [`lift`] takes it off before anybody reads it.
fn print(secret: &str) -> String {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    format!("(secret {:016x})", KEY.hash_one(secret))
}

/// The text as it may be shown: without what tells secrets apart.
pub fn lift(text: &str) -> String {
    let mut pieces = text.split("(secret ");
    let mut lifted = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.split_at_checked(17) {
            Some((digits, rest)) if digits.ends_with(')') => lifted.extend([VEIL, rest]),
            _ => lifted.extend(["(secret ", piece]),
        }
    }
    lifted
}

/// Puts something in place of all that looks like a secret in a plugin's configuration: whatever stands under a name that
/// secrets have. What should be secret by its nature belongs into `files`, and is not here at all.
pub fn veil(config: &mut Map<String, Value>) {
    for (name, value) in config {
        if is_secret(name) {
            hide(value);
        } else {
            visit(value);
        }
    }
}

/// A plugin's configuration, which is JSON, as it may be shown; null if it is none.
pub fn shown(config: &str) -> Value {
    let mut config = serde_json::from_str(config).unwrap_or_default();
    visit(&mut config);
    serde_json::from_str(&lift(&config.to_string())).unwrap_or_default()
}

fn visit(value: &mut Value) {
    match value {
        Value::Object(all) => veil(all),
        Value::Array(all) => all.iter_mut().for_each(visit),
        _ => {}
    }
}

/// The names within stay: they are whose the secrets are.
fn hide(value: &mut Value) {
    match value {
        Value::Object(all) => all.values_mut().for_each(hide),
        Value::Array(all) => all.iter_mut().for_each(hide),
        Value::Bool(_) | Value::Null => {}
        other => *other = print(&other.to_string()).into(),
    }
}

/// Whether secrets have names like this.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let (anywhere, whole) =
        (["secret", "password", "passwd", "credential", "private_key"], ["key", "keys", "users", "token", "tokens"]);
    anywhere.iter().any(|it| name.contains(it))
        || whole.iter().any(|it| name == *it)
        || ["api_key", "access_key", "auth_token", "access_token"].iter().any(|it| name.contains(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_apart_and_not_told() {
        let told = |secret: &str| serde_json::to_string(&Secret(secret.into())).unwrap();
        assert_eq!(told("a"), told("a"));
        assert_ne!(told("a"), told("b"));
        assert_eq!(lift(&told("a")), "\"(secret)\"");
        assert_eq!(lift("x (secret y (secret"), "x (secret y (secret");
    }

    #[test]
    fn what_is_named_like_a_secret_is_one() {
        let config =
            r#"{"keys":{"shop":"a","jobs":["b"]},"deep":[{"Password":"c","n":1}],"key_header":"x-key","secret":7}"#;
        let wanted = serde_json::json!({
            "keys": { "shop": VEIL, "jobs": [VEIL] }, "deep": [{ "Password": VEIL, "n": 1 }], "key_header": "x-key",
            "secret": VEIL,
        });
        assert_eq!(shown(config), wanted);
        assert_eq!(shown("no JSON"), Value::Null);
    }
}
