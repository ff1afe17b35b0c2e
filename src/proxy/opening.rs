//! The opening of a WebSocket where one side speaks HTTP/1 and the other HTTP/2. In HTTP/1 the client sends a key and the
//! server proves that it has read it (RFC 6455, section 4); in HTTP/2 there are neither (RFC 8441, section 5), so the gateway
//! is the client to the one and the server to the other.

use http::StatusCode;
use ring::digest;

use crate::message::{Known, RequestHead, ResponseHead};

/// What a server puts behind the key (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A request of an HTTP/2 client, with what an HTTP/1 endpoint wants to see.
pub struct Opening {
    /// What is to be sent.
    pub head: RequestHead,
    /// What has to come back; none for other protocols than WebSocket.
    accept: Option<[u8; 28]>,
}

impl Opening {
    /// Of a request with `upgrade`.
    pub fn new(head: &RequestHead) -> Opening {
        let mut head = head.clone();
        let websocket = head.upgrade.as_deref().is_some_and(|it| it.eq_ignore_ascii_case("websocket"));
        let accept = websocket.then(|| {
            // It has to differ, not to be secret: it shows that no cache has answered (RFC 6455, section 10.3).
            let mut key = [0; 24];
            base64(&fastrand::u128(..).to_ne_bytes(), &mut key);
            head.fields.set(Known::WebSocketKey, &key);
            accept(&key)
        });
        Opening { head, accept }
    }

    /// Whether the endpoint has shown that it speaks WebSocket, if it says so.
    pub fn is_answered(&self, answer: &ResponseHead) -> bool {
        let shown = answer.fields.get(Known::WebSocketAccept);
        let fine = self.accept.is_none_or(|accept| shown == Some(&accept[..]));
        fine || answer.status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Makes an HTTP/2 endpoint's yes to this request one of HTTP/1; the server's side knows what an HTTP/2 client wants to see.
pub fn answer(request: &RequestHead, answer: &mut ResponseHead) {
    answer.status = StatusCode::SWITCHING_PROTOCOLS;
    if let Some(protocol) = &request.upgrade {
        answer.fields.set(Known::Upgrade, protocol.as_bytes());
    }
    if let Some(key) = request.fields.get(Known::WebSocketKey) {
        answer.fields.set(Known::WebSocketAccept, &accept(key));
    }
}

/// What proves that a key was read.
fn accept(key: &[u8]) -> [u8; 28] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(GUID);
    let mut text = [0; 28];
    base64(context.finish().as_ref(), &mut text);
    text
}

/// RFC 4648, section 4. `text` has room for all, padding included.
fn base64(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (group, digits) in bytes.chunks(3).zip(text.chunks_mut(4)) {
        let mut three = [0; 4];
        three[1..=group.len()].copy_from_slice(group);
        let number = u32::from_be_bytes(three);
        for (at, digit) in digits.iter_mut().enumerate() {
            let index = (number >> (18 - 6 * at)) & 63;
            *digit = if at > group.len() { b'=' } else { DIGITS[index as usize] };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_the_specification() {
        assert_eq!(&accept(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn base64_pads() {
        for (bytes, expected) in [(&b"f"[..], "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"foob", "Zm9vYg==")] {
            let mut text = vec![0; expected.len()];
            base64(bytes, &mut text);
            assert_eq!(text, expected.as_bytes());
        }
    }

    #[test]
    fn an_endpoint_must_show_that_it_has_read_the_key() {
        let mut head = RequestHead::new(http::Method::GET, "/");
        head.upgrade = Some("websocket".into());
        let opening = Opening::new(&head);
        let key = opening.head.fields.get(Known::WebSocketKey).unwrap();
        assert_eq!(key.len(), 24);
        let mut answer = ResponseHead::new(StatusCode::SWITCHING_PROTOCOLS);
        assert!(!opening.is_answered(&answer));
        answer.fields.append(Known::WebSocketAccept, &accept(b"another"));
        assert!(!opening.is_answered(&answer));
        answer.fields.set(Known::WebSocketAccept, &accept(key));
        assert!(opening.is_answered(&answer));
        assert!(opening.is_answered(&ResponseHead::new(StatusCode::FORBIDDEN)));
    }
}
