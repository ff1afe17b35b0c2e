//! The heads of responses to clients, written as field blocks.

use super::hpack::Encoder;
use super::request::CONNECTION;
use crate::message::{Fields, Known, ResponseHead};

/// Writes the block of a response's head: no fields of an HTTP/1 connection, whoever wrote them.
pub fn head(encoder: &mut Encoder, head: &ResponseHead, out: &mut Vec<u8>) {
    encoder.begin(out);
    encoder.status(head.status.as_u16(), out);
    fields(encoder, &head.fields, Known::Te.bit(), out);
}

/// Writes the block of what stands behind a body.
pub fn trailers(encoder: &mut Encoder, trailers: &Fields, out: &mut Vec<u8>) {
    encoder.begin(out);
    fields(encoder, trailers, Known::Te.bit() | Known::Host.bit(), out);
}

fn fields(encoder: &mut Encoder, fields: &Fields, without: u64, out: &mut Vec<u8>) {
    let without = (CONNECTION | without) & !Known::Other.bit();
    for field in fields.iter() {
        if field.known.bit() & without == 0 {
            encoder.field(field.known, field.name, field.value, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hpack::Decoder;
    use super::*;

    fn read(decoder: &mut Decoder, block: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
        decoder.decode(block, |it| all.push(format!("{}: {}", text(it.name), text(it.value)))).unwrap();
        all
    }

    #[test]
    fn what_is_sent_has_nothing_of_a_connection() {
        let mut answer = ResponseHead::new(http::StatusCode::OK);
        for (name, value) in [
            ("Connection", "close"),
            ("TE", "trailers"),
            ("Transfer-Encoding", "chunked"),
            ("X-Mine", "1"),
            ("x-mine", "2"),
            ("Content-Type", "text/plain"),
            ("Set-Cookie", "a=1"),
        ] {
            answer.fields.append(name, value.as_bytes());
        }
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let expected = [":status: 200", "x-mine: 1", "x-mine: 2", "content-type: text/plain", "set-cookie: a=1"];
        for _ in 0..3 {
            let mut block = Vec::new();
            head(&mut encoder, &answer, &mut block);
            assert_eq!(read(&mut decoder, &block), expected);
        }
        let mut block = Vec::new();
        trailers(&mut encoder, &answer.fields, &mut block);
        assert_eq!(read(&mut decoder, &block), expected[1..]);
    }
}
