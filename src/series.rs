//! Which routes and services have time series of their own: names come from files and registries, which may have any number,
//! and every one of them costs whoever gathers the metrics. A number stays with its name as long as the process lives, so
//! that workers can count in arrays.

use std::sync::Arc;

use rustc_hash::FxHashMap;

/// What all names beyond the limit count as.
pub const OTHER: u32 = 0;

/// What the name of [`OTHER`] is.
pub const OTHER_NAME: &str = "other";

/// Numbers for names, in the order in which they are first heard of.
#[derive(Clone, Debug)]
pub struct Names {
    limit: usize,
    numbers: FxHashMap<Arc<str>, u32>,
    list: Arc<Vec<Arc<str>>>,
}

impl Names {
    /// For so many names; these stand first, and do not count.
    pub fn new(limit: u32, first: &[&str]) -> Names {
        let mut names = Names { limit: 1 + first.len(), numbers: FxHashMap::default(), list: Arc::default() };
        for name in std::iter::once(&OTHER_NAME).chain(first) {
            names.of(&Arc::from(*name));
        }
        names.limit += limit as usize;
        names
    }

    /// The number of a name; [`OTHER`] if there is none left.
    pub fn of(&mut self, name: &Arc<str>) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        if self.list.len() == self.limit {
            return OTHER;
        }
        let number = self.list.len() as u32;
        Arc::make_mut(&mut self.list).push(name.clone());
        self.numbers.insert(name.clone(), number);
        number
    }

    /// All names by their number.
    pub fn list(&self) -> Arc<Vec<Arc<str>>> {
        self.list.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_numbers_and_the_rest_shares_one() {
        let mut names = Names::new(2, &["auto"]);
        let mut of = |name: &str| names.of(&name.into());
        assert_eq!([of("other"), of("auto"), of("a"), of("b"), of("c"), of("a")], [0, 1, 2, 3, 0, 2]);
        let list: Vec<String> = names.list().iter().map(|it| it.to_string()).collect();
        assert_eq!(list, ["other", "auto", "a", "b"]);
        assert_eq!(Names::new(0, &[]).of(&"a".into()), OTHER);
    }
}
