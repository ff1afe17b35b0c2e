//! The arguments of the program in `bench/pingora`.

use anyhow::Result;

use super::Layout;

pub(super) fn write(layout: &Layout<'_>) -> Result<Vec<String>> {
    let (threads, certificates) = (layout.shape.workers.to_string(), layout.certificates);
    let mut all = vec![threads];
    all.extend([layout.plain, layout.http2, layout.tls].map(|it| it.to_string()));
    all.extend([&certificates.certificate, &certificates.key].map(|it| it.display().to_string()));
    all.extend(layout.origins.iter().map(ToString::to_string));
    Ok(all)
}
