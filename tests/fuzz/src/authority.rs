//! Hosts: what we take the `http` crate takes too, and reads in the same way; a name is its own name.

use moongate::message::authority::Authority;

/// The value of a `Host` field.
pub fn authority(data: &[u8]) {
    let Ok(read) = Authority::read(data) else { return };
    let other: http::uri::Authority = data.try_into().expect("the http crate is not stricter than we are");
    assert_eq!((read.host(), read.port), (other.host(), other.port_u16()));
    let name = read.name();
    let clean = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~[]:".contains(&byte);
    assert!(!name.is_empty() && name.len() <= 255 && name.bytes().all(clean), "{name}");
    assert!(
        !name.bytes().any(|it| it.is_ascii_uppercase()) && !name.ends_with('.') && !name.starts_with('.'),
        "{name}"
    );
    let again = Authority::read(name.as_bytes()).expect("a name is a host");
    assert_eq!((again.name(), again.port), (name.clone(), None));
    assert!(read.is_same(&again, read.port.unwrap_or(80)), "{read:?} {again:?}");
}
