//! The generic cell rate algorithm: a token bucket that is one number.
//!
//! The number is the *theoretical arrival time*: when the bucket will be full again, in the gateway's nanoseconds. Each
//! request moves it on by what one token takes to come. It is the virtual scheduling algorithm of ITU-T I.371, annex A.

/// How fast, and how many at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limit {
    /// Nanoseconds in which one token comes; at least 1.
    interval: u64,
    /// Tokens that a full bucket has; at least 1.
    burst: u64,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Decision {
    /// It may pass.
    Admit {
        /// The number to keep.
        full_at: u64,
        /// Tokens that are left.
        remaining: u64,
        /// Nanoseconds until the bucket is full.
        full_in: u64,
    },
    /// It may not; the number stays.
    Refuse {
        /// Nanoseconds until there is a token.
        retry_in: u64,
        /// Nanoseconds until the bucket is full.
        full_in: u64,
    },
}

/// The longest that a bucket may take to fill, 30 days: the store keeps entries for at most 49.
const LONGEST: u64 = 30 * 24 * 3600 * SECOND;

pub(crate) const SECOND: u64 = 1_000_000_000;

impl Limit {
    /// So many a time, such as `100/s`; `burst` none: as many at once.
    pub(crate) fn new(rate: &str, burst: Option<u64>) -> Result<Self, String> {
        let wrong =
            || format!("`rate` is `{rate}`, but must be a number a second, minute or hour, such as `100/s`, `10/m`");
        let (number, unit) = rate.split_once('/').ok_or_else(wrong)?;
        let period = match unit {
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3600 * SECOND,
            _ => return Err(wrong()),
        };
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = number.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
        // Above, an interval in whole nanoseconds is off by more than a thousandth.
        if number == 0 || number > period / SECOND * 1_000_000 {
            return Err(format!("`rate` is `{rate}`, but must be at least 1, and at most 1,000,000 a second"));
        }
        let burst = burst.unwrap_or(number);
        if burst == 0 {
            return Err("`burst` is 0, which would let nobody pass: at least 1".into());
        }
        let limit = Self { interval: period / number, burst };
        if limit.interval.checked_mul(burst).is_none_or(|time| time > LONGEST) {
            return Err(format!("`burst` is {burst}, which at this `rate` takes over 30 days to fill"));
        }
        Ok(limit)
    }

    /// Tokens that a full bucket has.
    pub(crate) fn burst(self) -> u64 {
        self.burst
    }

    /// Nanoseconds in which an empty bucket fills.
    pub(crate) fn window(self) -> u64 {
        self.interval * self.burst
    }

    /// What becomes of a request that comes now. `full_at`: the number that is kept; 0 if none is.
    pub(crate) fn decide(self, full_at: u64, now: u64) -> Decision {
        let full_in = full_at.saturating_sub(now);
        let spent = full_in.saturating_add(self.interval);
        match self.window().checked_sub(spent) {
            Some(left) => {
                Decision::Admit { full_at: now.saturating_add(spent), remaining: left / self.interval, full_in: spent }
            }
            None => Decision::Refuse { retry_in: spent - self.window(), full_in },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the requests at these times pass.
    fn admitted(limit: Limit, times: impl IntoIterator<Item = u64>) -> usize {
        let mut kept = 0;
        let pass = |now: &u64| match limit.decide(kept, *now) {
            Decision::Admit { full_at, .. } => {
                kept = full_at;
                true
            }
            Decision::Refuse { .. } => false,
        };
        times.into_iter().filter(pass).count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_does() {
        let limit = Limit::new("10/s", Some(5)).unwrap();
        assert_eq!(admitted(limit, [SECOND; 20]), 5, "at once");
        // 1,000 requests a second for ten seconds.
        assert_eq!(admitted(limit, (0..10_000).map(|at| SECOND + at * 1_000_000)), 5 + 99);
        let limit = Limit::new("10/s", Some(1)).unwrap();
        assert_eq!(admitted(limit, (0..10).map(|at| SECOND + at * SECOND / 10)), 10, "exactly at the rate");
        assert_eq!(admitted(limit, (0..10).map(|at| SECOND + at * (SECOND / 10 - 1))), 5, "a nanosecond too fast");
    }

    #[test]
    fn no_pause_gives_more_than_a_burst() {
        let limit = Limit::new("10/s", Some(5)).unwrap();
        let Decision::Admit { full_at, .. } = limit.decide(0, SECOND) else { panic!("refused") };
        let later = 1000 * SECOND;
        let mut kept = full_at;
        for left in (0..5).rev() {
            let Decision::Admit { full_at, remaining, .. } = limit.decide(kept, later) else { panic!("refused") };
            assert_eq!(remaining, left);
            kept = full_at;
        }
        assert!(matches!(limit.decide(kept, later), Decision::Refuse { .. }));
    }

    #[test]
    fn who_is_refused_learns_when_to_come_again() {
        let limit = Limit::new("2/s", Some(2)).unwrap();
        let now = 10 * SECOND;
        let empty = now + SECOND;
        assert_eq!(limit.decide(empty, now), Decision::Refuse { retry_in: SECOND / 2, full_in: SECOND });
        assert!(matches!(limit.decide(empty, now + SECOND / 2 - 1), Decision::Refuse { retry_in: 1, .. }));
        let admit = Decision::Admit { full_at: empty + SECOND / 2, remaining: 0, full_in: SECOND };
        assert_eq!(limit.decide(empty, now + SECOND / 2), admit);
    }

    #[test]
    fn odd_numbers_do_not_overflow() {
        let limit = Limit::new("1/h", Some(720)).unwrap();
        assert!(matches!(limit.decide(u64::MAX, 0), Decision::Refuse { .. }));
        assert!(matches!(limit.decide(0, u64::MAX), Decision::Admit { .. }));
    }

    #[test]
    fn rates_are_read_and_mistakes_named() {
        assert_eq!(Limit::new("100/s", None), Ok(Limit { interval: 10_000_000, burst: 100 }));
        assert_eq!(Limit::new("10/m", Some(3)), Ok(Limit { interval: 6 * SECOND, burst: 3 }));
        assert_eq!(Limit::new("1000/h", None).unwrap().window(), 3600 * SECOND);
        assert!(Limit::new("1000000/s", None).is_ok() && Limit::new("60000000/m", None).is_ok());
        for rate in ["", "100", "/s", "+1/s", "1.5/s", "100/d", "100/ s", "100/s/s"] {
            assert!(Limit::new(rate, None).unwrap_err().contains("such as `100/s`"), "{rate}");
        }
        for rate in ["0/s", "1000001/s"] {
            assert!(Limit::new(rate, None).unwrap_err().contains("at most 1,000,000"), "{rate}");
        }
        assert!(Limit::new("1/s", Some(0)).unwrap_err().contains("at least 1"));
        for burst in [721, u64::MAX] {
            assert!(Limit::new("1/h", Some(burst)).unwrap_err().contains("over 30 days"));
        }
    }
}
