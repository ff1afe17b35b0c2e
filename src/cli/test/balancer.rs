//! What every balancer must bear: no endpoints, one, many, other ones from pick to pick, retries, other uses beside it.

use std::sync::Arc;

use super::report::{Finding, HINT, advised};
use super::{Checked, Tester, steady};
use crate::cli::rig::{self, Rig};
use crate::endpoint::Endpoints;
use crate::plugin::instance::Turn;
use crate::plugin::{Binding, Kind};

/// Makes all checks.
pub(super) fn all(tester: &mut Tester) {
    tester.check("no endpoints", none);
    tester.check("one endpoint", one);
    tester.check("eight endpoints", eight);
    tester.check("weight 0", weightless);
    tester.check("endpoints that come and go", churn);
    tester.check("retries", retries);
    tester.check("two uses at once", two);
    tester.check("a number configured again", again);
    tester.check("memory", memory);
}

/// How often each endpoint was picked; the last: no opinion.
#[derive(Debug, PartialEq, Eq)]
struct Picked(Vec<u64>);

impl Picked {
    fn nobody(&self) -> u64 {
        self.0.last().copied().unwrap_or(0)
    }

    fn different(&self) -> usize {
        self.0[..self.0.len() - 1].iter().filter(|count| **count > 0).count()
    }
}

/// Picks for so many different requests. An index out of range is a failure already.
fn picks(rig: &mut Rig, binding: &Arc<Binding>, list: &Arc<Endpoints>, times: u64) -> Result<Picked, String> {
    let mut picked = vec![0; list.len() + 1];
    for n in 0..times {
        let (mut head, client) = rig::request(n);
        let turn = rig::turn(binding, client);
        let index = rig.pick(binding, list, &mut head, turn);
        let index = index.map_err(|failure| format!("pick {n} of {times}: {}", advised(&failure)))?;
        picked[index.map_or(list.len(), |index| index as usize)] += 1;
    }
    Ok(Picked(picked))
}

fn none(tester: &Tester) -> Checked {
    let mut rig = tester.rig();
    let binding = tester.bind(&rig);
    let told = |why| format!("{why}\n{HINT}without endpoints there is no index to return: return \"no opinion\"");
    picks(&mut rig, &binding, &rig::endpoints(&[]), 10).map_err(told)?;
    Ok(Finding::Fine("no opinion, as it should be".into()))
}

fn one(tester: &Tester) -> Checked {
    let mut rig = tester.rig();
    let binding = tester.bind(&rig);
    let picked = picks(&mut rig, &binding, &rig::endpoints(&[1]), 100)?;
    Ok(match picked.nobody() {
        0 => Finding::Fine("picked each time".into()),
        times => Finding::Note(format!("no opinion at {times} of 100 picks, where round robin decides")),
    })
}

fn eight(tester: &Tester) -> Checked {
    let mut rig = tester.rig();
    let binding = tester.bind(&rig);
    let picked = picks(&mut rig, &binding, &rig::endpoints(&[1; 8]), 10_000)?;
    Ok(spread(&picked))
}

/// What 10,000 picks of eight equal endpoints say.
fn spread(picked: &Picked) -> Finding {
    let counts = &picked.0[..picked.0.len() - 1];
    let (least, most) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
    match picked.different() {
        0 => {
            Finding::Note("it never had an opinion, so that round robin decides: is it configured as you want?".into())
        }
        1 => Finding::Note("different requests all go to the same endpoint, although the eight are alike".into()),
        all if picked.nobody() > 0 => {
            Finding::Note(format!("{all} of them picked, and no opinion at {} of 10000 picks", picked.nobody()))
        }
        all => Finding::Fine(format!("{all} of them picked, each {least} to {most} times in 10000")),
    }
}

fn weightless(tester: &Tester) -> Checked {
    let mut rig = tester.rig();
    let binding = tester.bind(&rig);
    let picked = picks(&mut rig, &binding, &rig::endpoints(&[0, 2, 1, 0]), 1000)?;
    let idle = picked.0[0] + picked.0[3];
    // That it is in range is looked at by `picks`.
    let none = picks(&mut rig, &binding, &rig::endpoints(&[0, 0]), 100)?;
    Ok(match idle {
        0 if none.nobody() == 100 => {
            Finding::Note("not picked, also not where every endpoint has it: all are equal then".into())
        }
        0 => Finding::Fine("not picked while others have more".into()),
        _ => Finding::Note(format!(
            "picked {idle} times in 1000 while others have more: operators take an endpoint out with weight 0"
        )),
    })
}

fn churn(tester: &Tester) -> Checked {
    let mut rig = tester.rig();
    let binding = tester.bind(&rig);
    let all = rig::endpoints(&[3, 1, 0, 2, 1, 5, 1, 1, 4, 1, 1, 1]);
    let lists: [(&str, Vec<usize>); 9] = [
        ("of 12", (0..12).collect()),
        ("of 3", vec![0, 4, 7]),
        ("of 3 in another order", vec![7, 0, 4]),
        ("of 12 in reverse", (0..12).rev().collect()),
        ("of none", vec![]),
        ("of one", vec![5]),
        ("of another one", vec![11]),
        ("of 2", vec![2, 3]),
        ("of 12 again", (0..12).collect()),
    ];
    for (what, chosen) in &lists {
        // Of several lengths, so that a place kept from before is met at different moments.
        for times in [1, 40] {
            let list = Arc::new(all.some(chosen));
            let told = |why| format!("after an update to a list {what}: {why}\n{HINT}forget what `update` replaces");
            picks(&mut rig, &binding, &list, times).map_err(told)?;
        }
    }
    Ok(Finding::Fine(format!("{} lists, each index in range", 2 * lists.len())))
}

fn retries(tester: &Tester) -> Checked {
    let mut rig = tester.rig();
    let binding = tester.bind(&rig);
    let list = rig::endpoints(&[1; 4]);
    let (mut again, mut count) = (0, 0);
    for n in 0..200 {
        let (mut head, client) = rig::request(n);
        let mut tried = Vec::new();
        // The last has nowhere else to go.
        for attempt in 0..5 {
            let turn = Turn { sequence: binding.count(), attempt, tried: &tried, client };
            let told = |failure| format!("attempt {attempt}, {} tried: {}", tried.len(), advised(&failure));
            let Some(index) = rig.pick(&binding, &list, &mut head, turn).map_err(told)? else { continue };
            let left = tried.len() < list.len();
            count += u64::from(attempt > 0 && left);
            again += u64::from(tried.contains(&index) && left);
            if !tried.contains(&index) {
                tried.push(index);
            }
        }
    }
    Ok(match again {
        0 => Finding::Fine("never an endpoint that was tried, while there are others".into()),
        _ => Finding::Note(format!(
            "{again} of {count} would go to an endpoint that was tried while there are others; the gateway overrules \
             that: look at `attempt`, and at `endpoints.tried`"
        )),
    })
}

fn two(tester: &Tester) -> Checked {
    let (long, short) = (rig::endpoints(&[1; 8]), rig::endpoints(&[1; 2]));
    let alone = {
        let mut rig = tester.rig();
        let binding = tester.bind(&rig);
        picks(&mut rig, &binding, &long, 400)?.different()
    };
    let mut rig = tester.rig();
    let (first, second) = (tester.bind(&rig), tester.bind(&rig));
    let told =
        |why| format!("{why}\n{HINT}keep the endpoints of each binding by its number: one instance serves many uses");
    // Both are known before either is asked, and the shorter list came last.
    let mut beside = vec![0; long.len() + 1];
    for n in 0..400 {
        for (binding, list) in [(&first, &long), (&second, &short)] {
            let (mut head, client) = rig::request(n);
            let turn = rig::turn(binding, client);
            let index = rig.pick(binding, list, &mut head, turn).map_err(|failure| told(advised(&failure)))?;
            if list.len() == long.len() {
                beside[index.map_or(long.len(), |index| index as usize)] += 1;
            }
        }
    }
    let beside = Picked(beside).different();
    Ok(match beside * 2 < alone {
        true => Finding::Wrong(told(format!(
            "of eight endpoints {alone} are picked, but {beside} while another use has two endpoints"
        ))),
        false => Finding::Fine("each picks from its own endpoints".into()),
    })
}

fn again(tester: &Tester) -> Checked {
    let mut rig = tester.rig();
    let told = |why| format!("{why}\n{HINT}`configure` ends what the number meant before, its endpoints too");
    for weights in [&[1; 8][..], &[1; 2], &[1; 5], &[]] {
        let binding = tester.bind(&rig);
        let list = rig::endpoints(weights);
        picks(&mut rig, &binding, &list, 20).map_err(told)?;
        // With it its number is free, and the next use gets it.
        drop(binding);
    }
    // One that is configured with nothing to pick from yet.
    let binding = rig.bind(Kind::Balancer, &tester.config);
    picks(&mut rig, &binding, &rig::endpoints(&[]), 5).map_err(told)?;
    Ok(Finding::Fine("means the new use".into()))
}

fn memory(tester: &Tester) -> Checked {
    let mut rig = tester.rig();
    let binding = tester.bind(&rig);
    let all = rig::endpoints(&[1; 16]);
    let lists = [all.clone(), Arc::new(all.some(&[0, 2, 4, 6, 8, 10]))];
    let mut list = lists[0].clone();
    steady("picks", |n| {
        if n.is_multiple_of(100) {
            // A list that it has not seen, as far as it can know.
            let before = &lists[(n / 100 % 2) as usize];
            list = Arc::new(before.some(&(0..before.len()).collect::<Vec<_>>()));
        }
        let (mut head, client) = rig::request(n);
        let turn = rig::turn(&binding, client);
        rig.pick(&binding, &list, &mut head, turn).map_err(|failure| format!("pick {n}: {}", advised(&failure)))?;
        Ok(rig.memory())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_strange_about_a_spread_is_noted() {
        let of = |counts: [u64; 9]| spread(&Picked(counts.to_vec()));
        let Finding::Fine(text) = of([1200, 1300, 1250, 1250, 1250, 1250, 1250, 1250, 0]) else { panic!("even") };
        assert_eq!(text, "8 of them picked, each 1200 to 1300 times in 10000");
        for (counts, words) in [
            ([0, 0, 0, 0, 0, 0, 0, 0, 10_000], "never had an opinion"),
            ([0, 10_000, 0, 0, 0, 0, 0, 0, 0], "all go to the same endpoint"),
            ([4000, 4000, 0, 0, 0, 0, 0, 0, 2000], "2 of them picked, and no opinion at 2000"),
        ] {
            assert!(matches!(of(counts), Finding::Note(text) if text.contains(words)), "{counts:?}");
        }
    }
}
