//! The floor's arguments.

use super::Layout;

pub(super) fn write(layout: &Layout<'_>) -> Vec<String> {
    let first = ["floor".to_owned(), layout.plain.port().to_string()];
    first.into_iter().chain(layout.origins.iter().map(ToString::to_string)).collect()
}
