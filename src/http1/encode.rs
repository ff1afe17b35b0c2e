//! Messages as they are written.

use http::StatusCode;

use crate::message::{Fields, RequestHead, ResponseHead, known::Known};

/// Writes a request's head. What frames the body is in its fields already.
pub fn request(out: &mut Vec<u8>, head: &RequestHead) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.target.as_str().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    fields(out, &head.fields);
    out.extend_from_slice(b"\r\n");
}

/// Writes a response's head. What frames the body is in its fields already. Always as HTTP/1.1, which is what the gateway
/// speaks, whatever the client does (RFC 9110, section 2.5).
pub fn response(out: &mut Vec<u8>, head: &ResponseHead) {
    status_line(out, head.status);
    fields(out, &head.fields);
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    if status == StatusCode::OK {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes field lines.
pub fn fields(out: &mut Vec<u8>, fields: &Fields) {
    fields.write(out);
}

/// Writes the line before a chunk of this many bytes, which is not zero.
pub fn chunk_size(out: &mut Vec<u8>, size: usize) {
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut rest = size;
    while rest > 0 {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Writes the end of a chunked body.
pub fn last_chunk(out: &mut Vec<u8>, trailers: Option<&Fields>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        fields(out, trailers);
    }
    out.extend_from_slice(b"\r\n");
}

/// Says in a message's fields how its body is delimited, instead of what they said before.
pub fn frame(fields: &mut Fields, length: crate::message::Length) {
    use crate::message::Length;
    fields.remove(Known::TransferEncoding);
    match length {
        Length::Unknown => {
            fields.remove(Known::ContentLength);
            fields.append(Known::TransferEncoding, b"chunked");
        }
        Length::Known(length) => fields.set(Known::ContentLength, itoa(length, &mut [0; 20])),
    }
}

/// The digits of the numbers below a hundred.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < pairs.len() {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// A number in decimal digits.
pub fn itoa(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    while number >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[(number % 100) as usize]);
        number /= 100;
        if number == 0 {
            return &digits[at..];
        }
    }
    at -= 1;
    digits[at] = b'0' + number as u8;
    &digits[at..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Length;

    #[test]
    fn numbers_are_written_in_their_digits() {
        for number in [0, 7, 10, 12345, u64::MAX] {
            assert_eq!(itoa(number, &mut [0; 20]), number.to_string().as_bytes());
        }
        for size in [1, 15, 16, 255, 65536, usize::MAX] {
            let mut out = Vec::new();
            chunk_size(&mut out, size);
            assert_eq!(out, format!("{size:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn a_message_says_once_how_long_it_is() {
        let mut fields = Fields::default();
        fields.append("Content-Length", b"5");
        frame(&mut fields, Length::Unknown);
        frame(&mut fields, Length::Known(7));
        assert_eq!(format!("{fields:?}"), r#"[("content-length", "7")]"#);
    }
}
