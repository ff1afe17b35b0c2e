//! An author's scenario, played: whether what comes is what was expected.

use std::sync::Arc;

use http::StatusCode;

use super::passage::pass;
use super::report::{Finding, advised};
use super::scenario::{Known, Picks, Scenario, Seen, Wanted};
use super::{Checked, Tester};
use crate::cli::rig::{self, Rig};
use crate::endpoint::{Endpoints, InFlight};
use crate::plugin::Binding;
use crate::plugin::instance::Turn;

/// Plays everything in its order, with one use of the plugin.
pub(super) fn all(tester: &mut Tester, scenario: &Scenario) {
    let file = scenario.path.display();
    let mut rig = tester.rig();
    let binding = tester.bind(&rig);
    let list = rig::list(scenario.endpoints.iter().map(|it| it.spec.clone()).collect());
    // To be kept, because they are in flight for as long.
    let _inflight = warm(&list, &scenario.endpoints);
    for (number, picks) in scenario.picks.iter().enumerate() {
        let what = format!("{file}:{}: picks[{number}]", picks.line);
        tester.check(&what, |_| play(&mut rig, &binding, &list, picks));
    }
    for (number, seen) in scenario.requests.iter().enumerate() {
        let what = format!("{file}:{}: requests[{number}]", seen.line);
        tester.check(&what, |_| show(&mut rig, &binding, seen));
    }
}

/// Gives the endpoints the figures that they are to have.
fn warm(list: &Arc<Endpoints>, known: &[Known]) -> Vec<InFlight> {
    let mut inflight = Vec::new();
    for (endpoint, known) in list.iter().zip(known) {
        if let (Some(request), Some(latency)) = (endpoint.admit(), known.latency) {
            request.answered(StatusCode::OK, latency.0);
        }
        inflight.extend((0..known.inflight).filter_map(|_| endpoint.admit()));
    }
    inflight
}

fn play(rig: &mut Rig, binding: &Arc<Binding>, list: &Arc<Endpoints>, picks: &Picks) -> Checked {
    let Picks { sent, times, tried, wanted, .. } = picks;
    let mut picked = vec![0; list.len() + 1];
    for n in 1..=*times {
        let turn = Turn { sequence: binding.count(), attempt: tried.len() as u32, tried, client: sent.client };
        let index = rig.pick(binding, list, &mut sent.head.clone(), turn);
        let index = index.map_err(|failure| format!("pick {n} of {times}: {}", advised(&failure)))?;
        if let Wanted::Always(wanted) = wanted
            && *wanted != index
        {
            let [wanted, came] = [*wanted, index].map(|it| name(list, it));
            return Err(format!("pick {n} of {times}: expected {wanted}, came {came}"));
        }
        picked[index.map_or(list.len(), |index| index as usize)] += 1_u32;
    }
    match wanted {
        Wanted::Always(index) => Ok(Finding::Fine(format!("{} at each of {times}", name(list, *index)))),
        Wanted::Shares(shares, tolerance) => shared(&picked, shares, *tolerance, |index| name(list, index)),
    }
}

/// Whether counts by index, the last of them no opinion, have these shares in millionths.
fn shared(picked: &[u32], shares: &[(u32, u32)], tolerance: u32, name: impl Fn(Option<u32>) -> String) -> Checked {
    let times: u64 = picked.iter().map(|count| u64::from(*count)).sum();
    let millionths = |count: u32| (u64::from(count) * 1_000_000 / times.max(1)) as u32;
    let percent = |share: u32| format!("{} %", f64::from(share) / 1e4);
    let wrong: Vec<String> = shares
        .iter()
        .map(|(index, wanted)| (index, wanted, millionths(picked[*index as usize])))
        .filter(|(_, wanted, came)| wanted.abs_diff(*came) > tolerance)
        .map(|(index, wanted, came)| {
            let (wanted, tolerance, came) = (percent(*wanted), percent(tolerance), percent(came));
            format!("{}: expected {wanted} ± {tolerance} of {times} picks, came {came}", name(Some(*index)))
        })
        .collect();
    match wrong.is_empty() {
        true => Ok(Finding::Fine(format!("shares as expected over {times} picks"))),
        false => {
            let counts = (0..picked.len()).map(|at| (Some(at as u32).filter(|_| at + 1 < picked.len()), picked[at]));
            let all: Vec<_> = counts.map(|(at, count)| format!("{} {count}", name(at))).collect();
            Err(format!("{}\nall of them: {}", wrong.join("\n"), all.join(", ")))
        }
    }
}

fn name(list: &Endpoints, index: Option<u32>) -> String {
    index.map_or("no opinion".to_owned(), |index| list[index as usize].spec.address.to_string())
}

fn show(rig: &mut Rig, binding: &Arc<Binding>, seen: &Seen) -> Checked {
    let passage = pass(rig, binding, &seen.sent, &seen.came).map_err(|failure| advised(&failure))?;
    let mut wrong = seen.expect.as_ref().map(|it| it.of_request(&passage)).unwrap_or_default();
    let response = seen.expect_response.as_ref().map(|it| it.of_response(&passage.back));
    wrong.extend(response.into_iter().flatten().map(|it| format!("response: {it}")));
    match wrong.is_empty() {
        true => Ok(Finding::Fine("as expected".into())),
        false => Err(wrong.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Time;

    #[test]
    fn shares_are_compared_within_their_tolerance() {
        let name = |index: Option<u32>| index.map_or("nobody".to_owned(), |it| format!("e{it}"));
        let told = |shares: &[(u32, u32)]| shared(&[740, 260, 0], shares, 20_000, name);
        assert!(matches!(told(&[(0, 750_000), (1, 250_000)]), Ok(Finding::Fine(_))));
        let wrong = told(&[(0, 700_000), (1, 250_000)]).unwrap_err();
        assert_eq!(wrong, "e0: expected 70 % ± 2 % of 1000 picks, came 74 %\nall of them: e0 740, e1 260, nobody 0");
    }

    #[test]
    fn endpoints_are_given_their_figures() {
        let known: Vec<Known> = rig::endpoints(&[1, 1])
            .iter()
            .zip([(0, None), (5000, Some(Time(Duration::from_millis(20))))])
            .map(|(it, (inflight, latency))| Known { spec: it.spec.clone(), inflight, latency })
            .collect();
        let list = rig::list(known.iter().map(|it| it.spec.clone()).collect());
        let inflight = warm(&list, &known);
        assert_eq!((list[0].live.inflight(), list[1].live.inflight()), (0, 5000));
        assert_eq!((list[0].live.latency().as_millis(), list[1].live.latency().as_millis()), (0, 20));
        drop(inflight);
        assert_eq!(list[1].live.inflight(), 0);
    }
}
