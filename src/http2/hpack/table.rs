//! The tables of HPACK (RFC 7541, section 2.3): fields that an index stands for.

use std::collections::VecDeque;

use crate::message::Known;

/// What an entry counts beside its texts (section 4.1).
const OVERHEAD: usize = 32;

/// The fields that every connection knows (appendix A): name, value, and the name's number among those that we know.
#[rustfmt::skip]
pub static STATIC: [(&str, &str, Known); 61] = [
    (":authority", "", Known::Other),
    (":method", "GET", Known::Other),
    (":method", "POST", Known::Other),
    (":path", "/", Known::Other),
    (":path", "/index.html", Known::Other),
    (":scheme", "http", Known::Other),
    (":scheme", "https", Known::Other),
    (":status", "200", Known::Other),
    (":status", "204", Known::Other),
    (":status", "206", Known::Other),
    (":status", "304", Known::Other),
    (":status", "400", Known::Other),
    (":status", "404", Known::Other),
    (":status", "500", Known::Other),
    ("accept-charset", "", Known::Other),
    ("accept-encoding", "gzip, deflate", Known::Other),
    ("accept-language", "", Known::Other),
    ("accept-ranges", "", Known::Other),
    ("accept", "", Known::Accept),
    ("access-control-allow-origin", "", Known::Other),
    ("age", "", Known::Other),
    ("allow", "", Known::Allow),
    ("authorization", "", Known::Other),
    ("cache-control", "", Known::Other),
    ("content-disposition", "", Known::Other),
    ("content-encoding", "", Known::Other),
    ("content-language", "", Known::Other),
    ("content-length", "", Known::ContentLength),
    ("content-location", "", Known::Other),
    ("content-range", "", Known::Other),
    ("content-type", "", Known::ContentType),
    ("cookie", "", Known::Cookie),
    ("date", "", Known::Date),
    ("etag", "", Known::Other),
    ("expect", "", Known::Expect),
    ("expires", "", Known::Other),
    ("from", "", Known::Other),
    ("host", "", Known::Host),
    ("if-match", "", Known::Other),
    ("if-modified-since", "", Known::Other),
    ("if-none-match", "", Known::Other),
    ("if-range", "", Known::Other),
    ("if-unmodified-since", "", Known::Other),
    ("last-modified", "", Known::Other),
    ("link", "", Known::Other),
    ("location", "", Known::Other),
    ("max-forwards", "", Known::Other),
    ("proxy-authenticate", "", Known::ProxyAuthenticate),
    ("proxy-authorization", "", Known::ProxyAuthorization),
    ("range", "", Known::Other),
    ("referer", "", Known::Referer),
    ("refresh", "", Known::Other),
    ("retry-after", "", Known::RetryAfter),
    ("server", "", Known::Server),
    ("set-cookie", "", Known::Other),
    ("strict-transport-security", "", Known::Other),
    ("transfer-encoding", "", Known::TransferEncoding),
    ("user-agent", "", Known::UserAgent),
    ("vary", "", Known::Other),
    ("via", "", Known::Via),
    ("www-authenticate", "", Known::Other),
];

/// The index of a name among [`STATIC`], in lower case; 0 if it has none.
pub(super) fn name_index(name: &[u8]) -> u32 {
    match name {
        b"accept-ranges" => 18,
        b"access-control-allow-origin" => 20,
        b"age" => 21,
        b"allow" => 22,
        b"cache-control" => 24,
        b"content-disposition" => 25,
        b"content-encoding" => 26,
        b"content-language" => 27,
        b"content-length" => 28,
        b"content-location" => 29,
        b"content-range" => 30,
        b"content-type" => 31,
        b"cookie" => 32,
        b"date" => 33,
        b"etag" => 34,
        b"expires" => 36,
        b"last-modified" => 44,
        b"link" => 45,
        b"location" => 46,
        b"proxy-authenticate" => 48,
        b"refresh" => 52,
        b"retry-after" => 53,
        b"server" => 54,
        b"set-cookie" => 55,
        b"strict-transport-security" => 56,
        b"vary" => 59,
        b"via" => 60,
        b"www-authenticate" => 61,
        _ => 0,
    }
}

/// The fields of one direction of a connection, the latest first. Their texts lie one behind the other, in the order in which
/// they came.
#[derive(Debug, Default)]
pub(super) struct Table {
    text: Vec<u8>,
    entries: VecDeque<Entry>,
    /// As the specification counts it.
    size: usize,
    limit: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    name: u32,
    value: u32,
    mark: Mark,
}

/// What whoever fills a table wants to know of an entry again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// The name's number.
    pub(super) known: Known,
    /// Whether name and value have only the characters that they may have.
    pub(super) sound: bool,
    /// By which it is found.
    pub(super) hash: u32,
}

impl Table {
    /// Empty, with room for so many bytes.
    pub(super) fn new(limit: usize) -> Table {
        Table { limit, ..Table::default() }
    }

    /// How many bytes there is room for.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Makes room for no more than so many bytes.
    pub(super) fn resize(&mut self, limit: usize) {
        self.limit = limit;
        self.shrink(limit);
    }

    /// Entries.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Name, value and mark of an entry; 0 is the latest.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8], Mark)> {
        let entry = self.entries.get(index)?;
        let (start, name, value) = (entry.start as usize, entry.name as usize, entry.value as usize);
        let text = &self.text[start..start + name + value];
        Some((&text[..name], &text[name..], entry.mark))
    }

    /// Where a field is.
    pub(super) fn find(&self, hash: u32, name: &[u8], value: &[u8]) -> Option<usize> {
        let is = |at: &usize| self.get(*at).is_some_and(|it| it.0 == name && it.1 == value);
        self.entries.iter().enumerate().filter(|(_, entry)| entry.mark.hash == hash).map(|(at, _)| at).find(is)
    }

    /// Puts a field before the others, and takes out the oldest for which there is no room. One that is larger than all the
    /// room leaves none (section 4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], mark: Mark) {
        let size = name.len() + value.len() + OVERHEAD;
        self.shrink(self.limit.saturating_sub(size));
        if size > self.limit {
            return;
        }
        self.text.extend_from_slice(name);
        self.add(name.len(), value, mark);
    }

    /// As [`Table::insert`], with the name of another entry.
    pub(super) fn insert_named(&mut self, index: usize, value: &[u8], mark: Mark) {
        let Some(named) = self.entries.get(index).copied() else { return };
        let size = named.name as usize + value.len() + OVERHEAD;
        if size > self.limit {
            return self.shrink(0);
        }
        // Before that entry goes.
        let (start, name) = (named.start as usize, named.name as usize);
        self.text.extend_from_within(start..start + name);
        let end = self.text.len();
        self.drop_entries(self.limit - size);
        self.add_at(end - name, name, value, mark);
    }

    /// An entry whose name is the end of the text.
    fn add(&mut self, name: usize, value: &[u8], mark: Mark) {
        self.add_at(self.text.len() - name, name, value, mark);
    }

    fn add_at(&mut self, start: usize, name: usize, value: &[u8], mark: Mark) {
        self.text.extend_from_slice(value);
        self.size += name + value.len() + OVERHEAD;
        self.entries.push_front(Entry { start: start as u32, name: name as u32, value: value.len() as u32, mark });
        self.compact();
    }

    fn shrink(&mut self, limit: usize) {
        self.drop_entries(limit);
        self.compact();
    }

    fn drop_entries(&mut self, limit: usize) {
        while self.size > limit {
            let Some(entry) = self.entries.pop_back() else { return };
            self.size -= (entry.name + entry.value) as usize + OVERHEAD;
        }
    }

    /// Gives back the text of what is gone, once that is as much as what may be there.
    fn compact(&mut self) {
        let gone = self.entries.back().map_or(self.text.len(), |oldest| oldest.start as usize);
        if gone > self.limit.max(256) {
            self.text.drain(..gone);
            self.entries.iter_mut().for_each(|entry| entry.start -= gone as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark { known: Known::Other, sound: true, hash: 0 };

    fn listed(table: &Table) -> Vec<String> {
        let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
        let all: Vec<_> = (0..table.len()).map(|at| table.get(at).unwrap()).collect();
        assert_eq!(table.size, all.iter().map(|it| it.0.len() + it.1.len() + OVERHEAD).sum::<usize>());
        all.iter().map(|it| format!("{}={}", text(it.0), text(it.1))).collect()
    }

    #[test]
    fn names_have_the_index_they_say() {
        for (at, (name, _, known)) in STATIC.iter().enumerate() {
            assert_eq!(Known::of(name.as_bytes()), *known, "{name}");
            let index = name_index(name.as_bytes()) as usize;
            assert!(index == 0 || index == at + 1, "{name}: {index}");
        }
    }

    #[test]
    fn the_oldest_make_room() {
        let mut table = Table::new(3 * 34);
        for (name, value) in [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")] {
            table.insert(name.as_bytes(), value.as_bytes(), MARK);
        }
        assert_eq!(listed(&table), ["d=4", "c=3", "b=2"]);
        // With the name of one that has to go for it.
        table.insert_named(2, b"22", MARK);
        assert_eq!(listed(&table), ["b=22", "d=4"]);
        assert_eq!((table.find(0, b"d", b"4"), table.find(0, b"d", b"5")), (Some(1), None));
        table.resize(35);
        assert_eq!(listed(&table), ["b=22"]);
        table.insert(b"e", &[b'x'; 100], MARK);
        assert_eq!((listed(&table).len(), table.limit()), (0, 35));
        table.insert(b"f", b"", MARK);
        table.insert_named(0, &[b'x'; 100], MARK);
        assert_eq!(listed(&table).len(), 0);
    }

    #[test]
    fn text_of_what_is_gone_is_given_back() {
        let mut table = Table::new(200);
        for round in 0..10_000 {
            table.insert(b"name", format!("{round}").as_bytes(), MARK);
            table.insert_named(0, &vec![b'x'; round % 160], MARK);
            let first = table.get(0).unwrap();
            assert_eq!((first.0, first.1.len()), (&b"name"[..], round % 160));
        }
        assert!(table.text.len() < 1000 && table.text.capacity() < 2000);
    }
}
