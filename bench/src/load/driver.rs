//! Sends the requests of a job and takes the answers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::h1::Answers;
use super::h2::Exchange;
use super::request::Requests;
use super::socket::{Connector, Socket};
use super::{Job, Outcome, Pace, Speak, Window, tell, told};
use crate::cpu::Sample;
use crate::epoll::{Interest, Poll, Ready};

/// Silence for so long is an error: no proxy here has a reason for it.
const SILENCE: Duration = Duration::from_secs(10);
/// The timer's token; connections have those from 0.
const TIMER: usize = usize::MAX;

enum Protocol {
    One(Answers),
    Two(Exchange),
}

struct Connection {
    socket: Socket,
    protocol: Protocol,
    /// What the socket did not take at once.
    unsent: Vec<u8>,
    /// How much of a request's body is not written yet.
    body: u64,
    interest: Interest,
}

struct Driver<'a> {
    job: &'a Job,
    connector: Connector,
    requests: Requests,
    poll: Poll,
    connections: Vec<Connection>,
    /// How many may still be sent; `None`: any number.
    allowed: Option<u64>,
    in_flight: u64,
    answered: u64,
    /// In nanoseconds, of this phase.
    latencies: Vec<u64>,
    /// Connections that could take a request, where the pace is open.
    idle: Vec<usize>,
    /// When requests were due that wait for a connection.
    waiting: VecDeque<Instant>,
    due: Instant,
    random: fastrand::Rng,
    timer: rustix::fd::OwnedFd,
    scratch: Vec<u8>,
    zeros: Vec<u8>,
}

impl Connection {
    /// Writes what is there to be written.
    fn flush(&mut self, zeros: &[u8]) -> Result<()> {
        while !self.unsent.is_empty() {
            match self.socket.send(&self.unsent)? {
                0 => break,
                sent if sent == self.unsent.len() => self.unsent.clear(),
                sent => drop(self.unsent.drain(..sent)),
            }
        }
        while self.unsent.is_empty() && self.body > 0 {
            let piece = &zeros[..zeros.len().min(self.body as usize)];
            match self.socket.send(piece)? {
                0 => break,
                sent => self.body -= sent as u64,
            }
        }
        self.socket.flush()?;
        Ok(())
    }

    fn wanted(&mut self) -> Result<Interest> {
        let all = self.socket.flush()? && self.unsent.is_empty() && self.body == 0;
        Ok(if all { Interest::Read } else { Interest::Both })
    }
}

impl<'a> Driver<'a> {
    fn new(job: &'a Job) -> Result<Driver<'a>> {
        let poll = Poll::new()?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        poll.add(&timer, TIMER, Interest::Read)?;
        let mut driver = Driver {
            job,
            connector: Connector::new(job.to, &job.speak)?,
            requests: Requests::new(&job.ask, job.fresh),
            poll,
            connections: Vec::new(),
            allowed: None,
            in_flight: 0,
            answered: 0,
            latencies: Vec::with_capacity(1 << 20),
            idle: Vec::new(),
            waiting: VecDeque::new(),
            due: Instant::now(),
            random: fastrand::Rng::with_seed(11),
            timer,
            scratch: vec![0; 1 << 18],
            zeros: vec![0; 1 << 18],
        };
        for token in 0..job.connections {
            let connection = driver.open(token)?;
            driver.connections.push(connection);
        }
        Ok(driver)
    }

    fn open(&self, token: usize) -> Result<Connection> {
        let socket = self.connector.open().context("connecting")?;
        self.poll.add(&socket.socket, token, Interest::Read)?;
        let protocol = match self.job.speak {
            Speak::Http2 { .. } => Protocol::Two(Exchange::new(&self.job.ask.path)),
            Speak::Http1 | Speak::Tls { .. } => Protocol::One(Answers::default()),
        };
        Ok(Connection { socket, protocol, unsent: Vec::new(), body: 0, interest: Interest::Read })
    }

    /// Puts a request on a connection, to be flushed. `false`: no more are allowed.
    fn begin(&mut self, token: usize, due: Instant) -> bool {
        match &mut self.allowed {
            Some(0) => return false,
            Some(left) => *left -= 1,
            None => {}
        }
        let connection = &mut self.connections[token];
        match &mut connection.protocol {
            Protocol::One(answers) => {
                answers.since = Some(due);
                self.requests.write(&mut connection.unsent);
                connection.body = self.job.ask.upload;
            }
            Protocol::Two(exchange) => exchange.begin(due, &mut connection.unsent),
        }
        self.in_flight += 1;
        true
    }

    fn settle(&mut self, token: usize) -> Result<()> {
        let connection = &mut self.connections[token];
        connection.flush(&self.zeros).context("sending")?;
        let wanted = connection.wanted()?;
        if wanted != connection.interest {
            connection.interest = wanted;
            self.poll.change(&connection.socket.socket, token, wanted)?;
        }
        Ok(())
    }

    /// Fills connections that have no request.
    fn start(&mut self) -> Result<()> {
        if let Pace::Open(_) = self.job.pace {
            self.idle = (0..self.connections.len()).collect();
            self.due = Instant::now();
            return self.arrivals();
        }
        let streams = if let Speak::Http2 { streams } = self.job.speak { streams } else { 1 };
        for token in 0..self.connections.len() {
            for _ in 0..streams {
                self.begin(token, Instant::now());
            }
            self.settle(token)?;
        }
        Ok(())
    }

    /// Sends what is due, and sets the timer for what is next.
    fn arrivals(&mut self) -> Result<()> {
        let Pace::Open(rate) = self.job.pace else { return Ok(()) };
        let now = Instant::now();
        while self.due <= now {
            match self.idle.pop() {
                Some(token) => {
                    if self.begin(token, self.due) {
                        self.settle(token)?;
                    }
                }
                None => self.waiting.push_back(self.due),
            }
            // The pauses of a Poisson process; the logarithm's argument is above zero.
            self.due += Duration::from_secs_f64(-(1.0 - self.random.f64()).ln() / rate);
        }
        ensure!(self.waiting.len() < 200_000, "the proxy cannot keep up: {} requests wait", self.waiting.len());
        let pause = self.due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: pause.subsec_nanos().into() },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// After an answer on a connection: the next request on it, if there is one now.
    fn answered(&mut self, token: usize, since: Instant, now: Instant) -> Result<()> {
        self.in_flight -= 1;
        self.answered += 1;
        self.latencies.push(now.duration_since(since).as_nanos() as u64);
        if self.job.fresh {
            self.connections[token] = self.open(token)?;
        }
        match (self.job.pace, self.waiting.pop_front()) {
            (Pace::Closed, _) => drop(self.begin(token, now)),
            (Pace::Open(_), Some(due)) => drop(self.begin(token, due)),
            (Pace::Open(_), None) => self.idle.push(token),
        }
        Ok(())
    }

    fn step(&mut self, ready: Ready) -> Result<()> {
        let token = ready.token;
        if token == TIMER {
            // Set anew, it is no longer expired.
            return self.arrivals();
        }
        if ready.read {
            self.read(token)?;
        }
        self.settle(token)
    }

    /// Takes what a connection has.
    fn read(&mut self, token: usize) -> Result<()> {
        let mut again = false;
        loop {
            let connection = &mut self.connections[token];
            let read = match connection.socket.receive(&mut self.scratch, again).context("receiving")? {
                None => return Ok(()),
                Some(0) => bail!("the connection was closed, {} in flight", self.in_flight),
                Some(read) => read,
            };
            let now = Instant::now();
            let bytes = &self.scratch[..read];
            let expected = self.job.ask.expected;
            match &mut connection.protocol {
                Protocol::One(answers) => {
                    if answers.take(bytes, expected)? {
                        let since = answers.since.take().context("an answer nobody waits for")?;
                        return self.answered(token, since, now);
                    }
                }
                Protocol::Two(exchange) => {
                    let mut done = Vec::new();
                    exchange.take(bytes, expected, &mut connection.unsent, |since| done.push(since))?;
                    debug_assert!(exchange.in_flight() <= 128);
                    for since in done {
                        self.answered(token, since, now)?;
                    }
                }
            }
            // Less than asked for means nothing more, without asking again; but TLS may hold some back.
            again = self.connections[token].socket.keeps();
            if !again && read < self.scratch.len() {
                return Ok(());
            }
        }
    }

    /// Goes on until `enough`.
    fn run(&mut self, mut enough: impl FnMut(&Self) -> bool) -> Result<()> {
        let mut ready = Vec::new();
        let (mut last, mut heard) = (self.answered, Instant::now());
        while !enough(self) {
            self.poll.wait(&mut ready, Some(Duration::from_millis(100)))?;
            for ready in ready.iter().copied() {
                self.step(ready)?;
            }
            if self.answered != last {
                (last, heard) = (self.answered, Instant::now());
            }
            ensure!(heard.elapsed() < SILENCE, "no answer for {SILENCE:?}, {} in flight", self.in_flight);
        }
        Ok(())
    }

    /// Forgets what was, for what is to be measured.
    fn reset(&mut self) {
        self.answered = 0;
        self.latencies.clear();
    }
}

/// The latency that this share of the requests did not exceed, in microseconds.
fn quantile(sorted: &[u64], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.saturating_sub(1)).map_or(0.0, |&it| it as f64 / 1000.0)
}

/// Does the job, and tells.
pub(super) fn run(job: &Job) -> Result<()> {
    let mut driver = Driver::new(job)?;
    let (requests, seconds) = job.warm_up;
    let staged = matches!(job.window, Window::Staged(_));
    if staged {
        driver.allowed = Some(requests);
    }
    driver.start()?;
    let begun = Instant::now();
    driver.run(|it| it.answered >= requests && begun.elapsed().as_secs_f64() >= seconds)?;
    if let Window::Staged(requests) = job.window {
        tell(&true)?;
        ensure!(told()?, "the benchmark ended");
        driver.allowed = Some(requests);
    }
    driver.reset();
    let before = Sample::take(&job.processes);
    let begun = Instant::now();
    if staged {
        driver.start()?;
    }
    match job.window {
        Window::Seconds(seconds) => driver.run(|_| begun.elapsed().as_secs_f64() >= seconds)?,
        Window::Requests(requests) | Window::Staged(requests) => driver.run(|it| it.answered >= requests)?,
    }
    let seconds = begun.elapsed().as_secs_f64();
    let used = Sample::take(&job.processes).since(&before)?;
    ensure!(driver.answered > 0, "nothing was answered");
    driver.latencies.sort_unstable();
    let quantile = |share| quantile(&driver.latencies, share);
    tell(&Outcome {
        requests: driver.answered,
        seconds,
        used,
        p50: quantile(0.5),
        p99: quantile(0.99),
        p999: quantile(0.999),
    })?;
    while staged && told()? {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_of_the_sorted() {
        let all: Vec<u64> = (1..=1000).map(|it| it * 1000).collect();
        assert_eq!((quantile(&all, 0.5), quantile(&all, 0.99), quantile(&all, 0.999)), (500.0, 990.0, 999.0));
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
