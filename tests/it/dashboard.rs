//! The dashboard in a real browser, beside a gateway under load. `SCREENSHOTS=DIR` has pictures of it written there.

use std::fmt::Write;
use std::fs;

use tempfile::TempDir;

use crate::plugins::{Load, with_plugins};
use crate::support::browser::{Browser, ENTER, TAB};
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::wasm::fixture;

/// The text of what a selector finds, in JavaScript.
fn text(selector: &str) -> String {
    format!("(document.querySelector({selector:?})?.textContent ?? '')")
}

/// Every control that has no name for those who do not see it.
const NAMELESS: &str =
    "return [...document.querySelectorAll('button, input, select, textarea, a, summary')].filter((it) =>
    !it.closest('dialog:not([open])') && !(it.textContent.trim() && it.matches('button, a, summary'))
    && !it.getAttribute('aria-label') && !it.labels?.length).map((it) => it.outerHTML)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_is_seen_without_a_reload() {
    let mut origins = [Origin::start().await, Origin::start().await, Origin::start().await];
    origins.sort_by_key(|it| it.address);
    let config = "workers = 1\n[[routes]]\npath_prefix = \"/api\"\nservice = \"s\"\nmethods = [\"GET\"]\n\
                  filters = [{ plugin = \"set-header\", config = { name = \"x-a\", value = \"b\" } }]\n\
                  balancer = { plugin = \"least-request\", fallback = \"weighted\" }\n";
    let all: Vec<&Origin> = origins.iter().collect();
    let gateway = with_plugins(&all, &[], config);
    let load = Load::on(gateway.http, "/s/", 2);
    let browser = Browser::start(1440, 900).await;
    browser.open(&format!("http://{}/", gateway.admin)).await;
    browser.script("window.loadedOnce = true").await;

    let service = "#services-table tbody tr";
    browser.sees("the service is shown", &format!("{}.includes('s')", text(&format!("{service} .name")))).await;
    browser
        .sees("with its endpoints", &format!("{}.trim() === '3'", text(&format!("{service} td:nth-child(2)"))))
        .await;
    browser.sees("requests are counted", &format!("parseFloat({}) > 0", text("#tile-requests strong"))).await;

    // By keyboard alone: to the filter, and to the service, which opens.
    browser.keys("/").await;
    browser.sees("the filter has the focus", "document.activeElement.id === 'services-filter'").await;
    browser.script("document.querySelector('#services-table .name').focus()").await;
    browser.keys(ENTER).await;
    let opened = "document.querySelector('#services-table .name').getAttribute('aria-expanded') === 'true'";
    browser.sees("the service is open", opened).await;
    browser
        .sees("its endpoints are listed", "document.querySelectorAll('#services-table .inner tbody tr').length === 3")
        .await;

    // A path is explained, and what is explained is what is there.
    browser.script("document.activeElement.blur()").await;
    browser.keys("t").await;
    browser.sees("the path has the focus", "document.activeElement.id === 'try-path'").await;
    browser.keys(&format!("/api/user?id=1{ENTER}")).await;
    browser.sees("it is explained", "!document.getElementById('explained').hidden").await;
    let told = browser.script(&format!("return {}", text("#explained"))).await;
    let told = told.as_str().unwrap();
    assert!(
        told.contains("The route /api takes it") && told.contains("The balancer least-request would pick 127.0.0.1:"),
        "{told}"
    );
    assert!(told.contains("set-header") && told.contains("as /user?id=1"), "{told}");
    browser.picture("explain.png").await;

    // A swap, and then a version that fails.
    gateway.plug("round-robin", fixture("first"));
    let timeline = |words: &str| format!("{}.includes({words:?})", text("#timeline"));
    browser.sees("the swap is told", &timeline("round-robin was swapped")).await;
    let row = "[...document.querySelectorAll('#plugins-table tbody tr')].find((it) => it.textContent.startsWith('round-robin'))";
    browser.sees("it is no bundled one any more", &format!("!{row}.textContent.includes('bundled')")).await;
    gateway.plug("round-robin", fixture("late-trap"));
    browser.sees("the quarantine is told", &timeline("is quarantined")).await;
    browser.sees("and shown", &format!("{row}.textContent.includes('quarantined')")).await;
    browser.script(&format!("{row}.querySelector('button').click()")).await;
    browser.sees("with its history", "document.querySelectorAll('.history li').length >= 3").await;

    // An endpoint leaves.
    gateway.serve("s", &all[..2]);
    browser.sees("it is told", &timeline("left; 2 serve it now")).await;
    browser.sees("and shown", &format!("{}.trim() === '2'", text(&format!("{service} td:nth-child(2)")))).await;
    browser
        .sees("the list is shorter", "document.querySelectorAll('#services-table .inner tbody tr').length === 2")
        .await;
    browser.picture("light.png").await;
    browser.dark(true).await;
    browser.sees("it is dark", "getComputedStyle(document.body).backgroundColor === 'rgb(17, 21, 27)'").await;
    browser.picture("dark.png").await;
    browser.script("document.getElementById('theme').click()").await;
    browser.sees("light was chosen", "getComputedStyle(document.body).backgroundColor === 'rgb(245, 244, 240)'").await;
    browser.script("document.getElementById('theme').click(); document.getElementById('theme').click()").await;
    browser.dark(false).await;

    // On a phone nothing has to be moved sideways.
    browser.size(390, 844).await;
    browser.sees("it fits", "innerWidth === 390 && document.documentElement.scrollWidth <= 390").await;
    browser.picture("phone.png").await;

    assert_eq!(browser.script(NAMELESS).await, serde_json::json!([]), "controls without a name");
    assert_eq!(browser.script("return window.loadedOnce").await, true, "it was loaded again");
    load.assert_flawless().await;
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_services_stay_readable_behind_a_token() {
    let (dir, token, origin) = (TempDir::new().unwrap(), "0123456789abcdef", Origin::start().await);
    let mut services = String::new();
    for number in 0..1000 {
        let endpoints =
            format!("[{{ address = \"{}\" }}, {{ address = \"127.9.0.1:9\", weight = 0 }}]", origin.address);
        writeln!(services, "[services.service-{number}]\nendpoints = {endpoints}").unwrap();
    }
    fs::write(dir.path().join("services.toml"), services).unwrap();
    let config =
        format!("workers = 1\nadmin_token = \"{token}\"\n[registry.file]\npath = \"services.toml\"\n[auto_routes]\n");
    let gateway = Gateway::start_in(dir, &config);
    let load = Load::on(gateway.http, "/service-777/", 1);
    let browser = Browser::start(1280, 800).await;
    browser.open(&format!("http://{}/", gateway.admin)).await;
    browser.sees("it asks for the token", "document.getElementById('token').open").await;
    browser.keys(&format!("not the token{ENTER}")).await;
    browser.sees("that was wrong", &format!("{}.includes('not the token')", text("#token-wrong"))).await;
    browser.script("document.getElementById('token-input').value = ''").await;
    browser.keys(&format!("{token}{ENTER}")).await;

    browser
        .sees("all are there", &format!("{}.includes('1,000 services, 2,000 endpoints')", text("#services-count")))
        .await;
    assert_eq!(browser.script("return document.querySelectorAll('#services-table tbody tr').length").await, 25);
    browser.sees("in pages", &format!("{}.includes('1–25 of 1,000')", text("#services-pager"))).await;
    browser.script("document.querySelector('[data-sort=rate]').click()").await;
    browser
        .sees("the busiest comes first", &format!("{}.includes('service-777')", text("#services-table tbody .name")))
        .await;
    browser.picture("thousand.png").await;
    browser.script("document.querySelector('#services-pager button:last-child').click()").await;
    browser.sees("the next page", &format!("{}.includes('26–50 of 1,000')", text("#services-pager"))).await;
    browser.script("document.getElementById('services-filter').focus()").await;
    browser.keys("service-12").await;
    browser.sees("the filter counts", &format!("{}.startsWith('11 of 1,000')", text("#services-count"))).await;
    // One state of a thousand services must not keep the page from answering.
    let slowest = "return new Promise((done) => { let worst = 0, last = performance.now(), end = last + 2500;
        const turn = (now) => { worst = Math.max(worst, now - last); last = now; now < end ? setTimeout(() => turn(performance.now())) : done(worst); };
        turn(last); })";
    let slowest = browser.script(slowest).await.as_f64().unwrap();
    assert!(slowest < 1000.0, "the page stood still for {slowest} ms");
    browser.keys(TAB).await;
    browser.sees("the next control", "document.activeElement.id === 'services-show'").await;
    load.assert_flawless().await;
    // That a wrong token was refused, it is right to complain of.
    let others: Vec<String> = browser.complaints().await.into_iter().filter(|it| !it.contains("401")).collect();
    assert_eq!(others, [""; 0]);
}
