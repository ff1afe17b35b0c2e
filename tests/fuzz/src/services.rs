//! Services files: services that can be used, or mistakes that say where they are.

use std::path::Path;

use moongate::config::mistakes::Mistakes;
use moongate::registry::file;

/// The text of a services file.
pub fn services(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match file::parse(text, Path::new("services.toml")) {
        Ok(services) => {
            for (name, service) in services {
                assert!(!name.is_empty() && !name.contains('/'), "{name}");
                assert!(service.endpoints.is_sorted_by(|a, b| a.address < b.address), "{service:?}");
                assert!(service.endpoints.iter().all(|it| it.address.port() != 0), "{service:?}");
            }
        }
        Err(mistakes) => told(&mistakes, text),
    }
}

/// There is a mistake, each is where it can be found, and all can be printed.
pub(super) fn told(mistakes: &Mistakes, text: &str) {
    assert!(!mistakes.is_empty(), "neither good nor bad");
    // The place may be the end, behind the last line feed.
    let lines = text.matches('\n').count() + 1;
    for mistake in &mistakes.all {
        assert!(!mistake.message.is_empty());
        // Only what is missing from the file as a whole stands nowhere in it.
        let missing = mistake.message.starts_with("missing key");
        assert!(mistake.place.is_some() || missing, "{mistake:?}");
        if let Some(place) = &mistake.place {
            assert!((1..=lines).contains(&place.line) && place.column >= 1 && place.width >= 1, "{mistake:?}");
        }
    }
    let told = mistakes.to_string();
    assert!(mistakes.all.iter().all(|it| told.contains(&it.message)), "{told}");
}
