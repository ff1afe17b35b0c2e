//! Whole tokens, whole configurations.

use super::*;
use crate::vectors::{
    ES256, ES256_PEM, ES256_X, ES256_Y, EXPIRES, HS256, HS256_KEY, P384_PEM, RS256, RS256_N, RS256_PEM, RS256_PKCS1,
};
use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The keys of RFC 7515 as a set, with these names; an empty one is left out.
fn set(hs: &str, rs: &str, es: &str) -> String {
    let kid = |kid: &str| if kid.is_empty() { String::new() } else { format!(r#","kid":"{kid}""#) };
    format!(
        r#"{{"keys":[{{"kty":"oct","k":"{HS256_KEY}"{}}},{{"kty":"RSA","n":"{RS256_N}","e":"AQAB"{}}},
            {{"kty":"EC","crv":"P-256","x":"{ES256_X}","y":"{ES256_Y}"{}}}]}}"#,
        kid(hs),
        kid(rs),
        kid(es)
    )
}

fn configure(json: &str) -> Result<Jwt, String> {
    RequestFilter::configure(Config::new(json))
}

fn with_set(set: &str) -> Jwt {
    configure(&format!(r#"{{"jwks":{set}}}"#)).unwrap()
}

/// Whether the token is taken, a second before the RFC's expire.
fn taken(jwt: &Jwt, token: &str) -> bool {
    jwt.claims(token, (EXPIRES - 1) * 1000).is_ok()
}

/// A token with HS256, signed with the RFC's key.
fn hs256(header: &str, payload: &str) -> String {
    signed(&Base64UrlUnpadded::decode_vec(HS256_KEY).unwrap(), header, payload)
}

fn signed(secret: &[u8], header: &str, payload: &str) -> String {
    let encoded = |text: &str| Base64UrlUnpadded::encode_string(text.as_bytes());
    let message = [encoded(header), encoded(payload)].join(".");
    let signature = Hmac::<Sha256>::new_from_slice(secret).unwrap().chain_update(&message).finalize().into_bytes();
    [message, Base64UrlUnpadded::encode_string(&signature)].join(".")
}

/// Valid at the RFC's time.
const PAYLOAD: &str = r#"{"exp":1300819380,"sub":"ada"}"#;

#[test]
fn the_examples_of_rfc_7515_are_taken() {
    let jwt = with_set(&set("", "", ""));
    for token in [HS256, RS256, ES256] {
        assert!(taken(&jwt, token), "{token}");
        assert_eq!(jwt.claims(token, (EXPIRES + 30) * 1000).unwrap_err(), Refusal::Expired);
    }
    let claims = jwt.claims(RS256, 0).unwrap();
    assert_eq!(claims.get("iss"), Some(&Value::Text("joe".into())));
    assert_eq!(claims.get("http://example.com/is_root"), Some(&Value::Bool(true)));
}

#[test]
fn keys_come_as_text_and_as_pem_too() {
    let text = set("", "", "").replace('"', "\\\"").replace('\n', " ");
    assert!(taken(&configure(&format!(r#"{{"jwks":"{text}"}}"#)).unwrap(), ES256));
    for (pem, token) in [(RS256_PEM, RS256), (ES256_PEM, ES256)] {
        let pem = pem.replace('\n', "\\n");
        let jwt = configure(&format!(r#"{{"public_key":"\n{pem}"}}"#)).unwrap();
        assert!(taken(&jwt, token));
        assert!(!taken(&jwt, HS256));
    }
    let secret = "a secret of more than thirty-two bytes";
    let jwt = configure(&format!(r#"{{"secret":"{secret}\n"}}"#)).unwrap();
    assert!(taken(&jwt, &signed(secret.as_bytes(), r#"{"alg":"HS256"}"#, PAYLOAD)));
}

#[test]
fn a_changed_token_is_refused_wherever_it_is_changed() {
    let jwt = with_set(&set("", "", ""));
    for token in [HS256, RS256, ES256] {
        for at in 0..token.len() {
            let mut changed = token.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(!taken(&jwt, std::str::from_utf8(&changed).unwrap()), "{at} of {token}");
        }
        for end in 0..token.len() {
            assert!(!taken(&jwt, &token[..end]), "{end} of {token}");
        }
        for odd in
            [format!("{token}A"), format!("{token}="), format!("{token}."), format!(".{token}"), format!("{token}.a.b")]
        {
            assert!(!taken(&jwt, &odd), "{odd}");
        }
    }
}

#[test]
fn a_signature_does_not_go_with_another_message_or_algorithm() {
    let jwt = with_set(&set("", "", ""));
    let parts = |token: &'static str| token.split('.').collect::<Vec<_>>();
    let (hs, rs, es) = (parts(HS256), parts(RS256), parts(ES256));
    for (header, signature) in [(hs[0], rs[2]), (rs[0], hs[2]), (es[0], rs[2]), (rs[0], es[2]), (hs[0], "")] {
        assert!(!taken(&jwt, &[header, hs[1], signature].join(".")));
    }
}

#[test]
fn no_algorithm_but_the_key_s_is_taken() {
    let jwt = with_set(&set("", "", ""));
    assert!(taken(&jwt, &hs256(r#"{"alg":"HS256"}"#, PAYLOAD)));
    for alg in ["none", "None", "HS384", "hs256", "HS512", "PS256", "EdDSA", "", "HS256 "] {
        let token = hs256(&format!(r#"{{"alg":"{alg}"}}"#), PAYLOAD);
        assert!(!taken(&jwt, &token), "{alg}");
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert!(!taken(&jwt, &unsigned), "{alg}");
    }
    for header in ["{}", r#"{"alg":null}"#, r#"{"alg":["HS256"]}"#, r#"{"alg":"none","alg":"HS256"}"#, "", "[]"] {
        assert!(!taken(&jwt, &hs256(header, PAYLOAD)), "{header}");
    }
}

#[test]
fn a_public_key_is_no_secret() {
    // Who has the public key, which is everybody, signs with it as if it were a secret.
    let pem = RS256_PEM.replace('\n', "\\n");
    let jwt = configure(&format!(r#"{{"public_key":"{pem}"}}"#)).unwrap();
    let token = |secret: &[u8]| signed(secret, r#"{"alg":"HS256"}"#, PAYLOAD);
    assert!(!taken(&jwt, &token(RS256_PEM.as_bytes())));
    assert!(!taken(&jwt, &token(RS256_PEM.trim_ascii().as_bytes())));
    let modulus = Base64UrlUnpadded::decode_vec(RS256_N).unwrap();
    assert!(!taken(&with_set(&set("", "", "")), &token(&modulus)));
}

#[test]
fn algorithms_that_are_not_listed_are_refused() {
    let jwt = configure(&format!(r#"{{"jwks":{},"algorithms":["ES256"]}}"#, set("", "", ""))).unwrap();
    assert!(taken(&jwt, ES256));
    assert!(!taken(&jwt, HS256) && !taken(&jwt, RS256));
}

#[test]
fn a_key_s_own_words_bind_it() {
    let with = |words: &str| {
        let jwk = format!(r#"{{"keys":[{{"kty":"RSA","n":"{RS256_N}","e":"AQAB"{words}}}]}}"#);
        configure(&format!(r#"{{"jwks":{jwk}}}"#))
    };
    for words in ["", r#","use":"sig","alg":"RS256","key_ops":["verify"],"x5c":[1.5]"#, r#","k":"!""#] {
        assert!(taken(&with(words).unwrap(), RS256), "{words}");
    }
    for words in [r#","use":"enc""#, r#","alg":"RS512""#, r#","alg":"HS256""#, r#","key_ops":["encrypt"]"#] {
        assert!(with(words).err().unwrap().contains("there is no key"), "{words}");
    }
}

#[test]
fn two_keys_are_told_apart_by_their_names() {
    let other = "b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXI";
    let keys =
        format!(r#"{{"keys":[{{"kty":"oct","k":"{other}","kid":"a"}},{{"kty":"oct","k":"{HS256_KEY}","kid":"b"}}]}}"#);
    let jwt = with_set(&keys);
    let of = |kid: &str| taken(&jwt, &hs256(&format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#), PAYLOAD));
    assert!(of("b"));
    assert!(!of("a"), "the key of that name is another");
    assert!(!of("c"), "there is no such key, and none without a name");
    assert!(taken(&jwt, HS256), "without a name each is tried");
    let unnamed = with_set(&keys.replace(r#","kid":"b""#, ""));
    assert!(taken(&unnamed, &hs256(r#"{"alg":"HS256","kid":"c"}"#, PAYLOAD)));
    assert!(!taken(&unnamed, &hs256(r#"{"alg":"HS256","kid":"a"}"#, PAYLOAD)));
}

#[test]
fn not_every_key_is_tried_for_a_token_that_names_none() {
    let other = r#"{"kty":"oct","k":"b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXI"},"#;
    let last_of =
        |others: usize| with_set(&format!(r#"{{"keys":[{}{{"kty":"oct","k":"{HS256_KEY}"}}]}}"#, other.repeat(others)));
    assert!(taken(&last_of(1), HS256));
    assert!(!taken(&last_of(2), HS256));
}

#[test]
fn extensions_that_must_be_understood_are_not() {
    let jwt = with_set(&set("", "", ""));
    for crit in [r#"["b64"]"#, "[]", "null", "\"exp\""] {
        assert!(!taken(&jwt, &hs256(&format!(r#"{{"alg":"HS256","crit":{crit}}}"#), PAYLOAD)), "{crit}");
    }
    assert!(taken(&jwt, &hs256(r#"{"alg":"HS256","typ":"JWT","jku":"https://evil.example","x":[1]}"#, PAYLOAD)));
}

#[test]
fn what_is_signed_must_still_be_claims_and_of_a_length() {
    let jwt = with_set(&set("", "", ""));
    for payload in ["", "[]", "{", r#"{"exp":1,"exp":1300819380}"#] {
        assert!(!taken(&jwt, &hs256(r#"{"alg":"HS256"}"#, payload)), "{payload}");
    }
    let padded =
        |bytes: usize| hs256(r#"{"alg":"HS256"}"#, &format!(r#"{{"exp":1300819380,"pad":"{}"}}"#, "x".repeat(bytes)));
    assert!(taken(&jwt, &padded(12_000)) && !taken(&jwt, &padded(13_000)));
}

#[test]
fn answers_are_rfc_6750_s() {
    let jwt = configure(&format!(r#"{{"jwks":{},"realm":"a","claims":{{"sub":"bo"}}}}"#, set("", "", ""))).unwrap();
    let challenge = |why: &Refusal| {
        let reply = jwt.refusal(why);
        let header = reply.headers.iter().find(|header| header.0 == "www-authenticate").unwrap();
        (reply.status, header.1.clone())
    };
    assert_eq!(challenge(&Refusal::Invalid), (401, r#"Bearer realm="a", error="invalid_token""#.into()));
    assert!(challenge(&Refusal::Expired).1.ends_with(r#"error_description="the token has expired""#));
    let why = jwt.claims(&hs256(r#"{"alg":"HS256"}"#, PAYLOAD), 0).unwrap_err();
    assert_eq!(challenge(&why), (403, r#"Bearer realm="a", error="insufficient_scope""#.into()));
}

#[test]
fn bearers_are_found_and_claims_told() {
    assert_eq!(bearer("Bearer a.b.c"), Some("a.b.c"));
    assert_eq!(bearer("bearer  a.b.c "), Some("a.b.c"));
    assert_eq!((bearer("Basic a"), bearer("Bearer"), bearer("a.b.c")), (None, None, None));
    let config = r#""claim_headers":{"x-user":"sub","x-groups":"groups"}"#;
    let jwt = configure(&format!(r#"{{"jwks":{},{config}}}"#, set("", "", ""))).unwrap();
    let told = |payload: &str| jwt.told(&moongate_plugin::json::read(payload).unwrap());
    assert_eq!(told(r#"{"sub":"ada"}"#), Ok(vec![("x-groups", None), ("x-user", Some("ada".into()))]));
    assert_eq!(told(r#"{"groups":["a,b"]}"#), Err(Refusal::Invalid));
}

#[test]
fn mistakes_are_named_and_keys_are_not() {
    let escaped = |pem: &str| pem.replace('\n', "\\n");
    let secret = r#""secret":"hunter2-hunter2-hunter2-hunter2-""#;
    for (json, words) in [
        ("{}".to_owned(), "give `secret`, `public_key` or `jwks`"),
        (r#"{"secret":"hunter2"}"#.into(), "`secret` has 7 bytes, but must have at least 32"),
        (format!(r#"{{{secret},"algorithms":["none"]}}"#), "unknown variant `none`, expected one of `HS256`"),
        (format!(r#"{{{secret},"algorithms":["RS256"]}}"#), "`secret` is a key for HS256, which is not one of"),
        (format!(r#"{{{secret},"algorithms":["HS256","ES256"]}}"#), "`algorithms` has ES256, but there is no key"),
        (r#"{"public_key":"hunter2"}"#.into(), "`public_key` is no PEM text"),
        (format!(r#"{{"public_key":"{}"}}"#, escaped(RS256_PKCS1)), "a PEM text of a RSA PUBLIC KEY"),
        (format!(r#"{{"public_key":"{}"}}"#, escaped(P384_PEM)), "nor one of the curve P-256"),
        (r#"{"jwks":"hunter2"}"#.into(), "`jwks`: not valid JSON"),
        (r#"{"jwks":"{}"}"#.into(), "missing field `keys`"),
        (r#"{"jwks":{"keys":[]}}"#.into(), "there is no key"),
        (r#"{"jwks":{"keys":[{"kty":"oct","k":"aHVudGVyMg","kid":"a"}]}}"#.into(), "`jwks`: the key `a` has 7 bytes"),
        (r#"{"jwks":{"keys":[{"kty":"RSA","n":"q","e":"AQAB"}]}}"#.into(), "the key number 1 has a `n` that"),
        (r#"{"jwks":{"keys":[{"kty":"RSA","n":"qw","e":"AQAB"}]}}"#.into(), "RSA key of 8 bits"),
        (r#"{"jwks":{"keys":[{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ"}]}}"#.into(), "no point of the curve"),
        (format!(r#"{{{secret},"leeway":601}}"#), "`leeway` is 601"),
        (format!(r#"{{{secret},"audience":[]}}"#), "an empty list names nobody"),
        (format!(r#"{{{secret},"header":"a","cookie":"b"}}"#), "do not go together"),
        (format!(r#"{{{secret},"header":"a b"}}"#), "`header` is `a b`"),
        (format!(r#"{{{secret},"cookie":""}}"#), "`cookie` is empty"),
        (format!(r#"{{{secret},"claim_headers":{{"Authorization":"sub"}}}}"#), "the header where the token is"),
        (format!(r#"{{{secret},"algorithm":"HS256"}}"#), "unknown field `algorithm`"),
    ] {
        let error = configure(&json).err().unwrap();
        assert!(error.contains(words), "{json}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn the_schema_has_the_options() {
    moongate_plugin::testing::assert_schema::<Options>(include_str!("../schema.json"));
}
