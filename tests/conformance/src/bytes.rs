//! Small helpers over bytes: finding, showing, and taking heads apart. Deliberately naive: a case says what it means.

/// Names and values, in order.
pub(crate) type Fields = Vec<(String, String)>;

/// Where `needle` first stands in `hay`.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// Bytes as a person can read them, cut after 300.
pub(crate) fn show(bytes: &[u8]) -> String {
    let mut text: String = bytes.iter().take(300).flat_map(|byte| byte.escape_ascii()).map(char::from).collect();
    if bytes.len() > 300 {
        text.push_str(&format!("… ({} bytes)", bytes.len()));
    }
    text
}

/// The fields of a head, without its first line; what has no colon becomes a name without value.
pub(crate) fn fields(head: &[u8]) -> Fields {
    let text = String::from_utf8_lossy(head);
    let lines = text.lines().skip(1).filter(|line| !line.is_empty());
    lines
        .map(|line| line.split_once(':').unwrap_or((line, "")))
        .map(|(n, v)| (n.to_owned(), v.trim().to_owned()))
        .collect()
}

/// The values of all fields of that name, whatever its case.
pub(crate) fn values<'a>(fields: &'a Fields, name: &str) -> Vec<&'a str> {
    fields.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
}

/// Whether a list field (as `Connection`) has that member.
pub(crate) fn lists(fields: &Fields, name: &str, member: &str) -> bool {
    values(fields, name).iter().any(|value| value.split(',').any(|it| it.trim().eq_ignore_ascii_case(member)))
}

/// `data` cut into chunks of `size` bytes, with the last one but without what follows it.
pub(crate) fn chunked(data: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in data.chunks(size) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n");
    out
}
