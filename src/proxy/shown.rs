//! Bodies that filters asked to see: piece by piece on their way, or gathered and shown as a whole.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::Worker;
use super::body::{Body, Upload};
use super::filter::{self, Shared, Shown};
use super::reply;
use crate::message::{BodyError, Fields, Frame, Length};
use crate::plugin::host::{Piece, Show, Step};
use crate::plugin::instance::Verdict;
use crate::timer::{Patience, Timer};

/// Bytes that are shown at once where a body is shown in pieces.
const PIECE: usize = 64 << 10;

/// What a body comes from.
pub trait Source {
    /// The next piece; none at the end.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>>;
}

impl Source for Upload {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        Upload::poll_frame(self, context)
    }
}

impl Source for Body {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        Body::poll_frame(self, context)
    }
}

/// Whose body it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The client's.
    Request,
    /// The endpoint's.
    Response,
}

/// The filters that see one body.
pub struct Audience {
    worker: Rc<Worker>,
    shared: Shared,
    shown: Vec<Shown>,
    whose: Whose,
}

/// A body that is shown on its way.
pub struct Through<S> {
    /// What it comes from.
    pub source: S,
    audience: Audience,
    /// What is ready to go on.
    ready: VecDeque<Frame>,
    over: bool,
}

impl Audience {
    /// These filters, in this order.
    pub fn new(worker: &Rc<Worker>, shared: &Shared, shown: Vec<Shown>, whose: Whose) -> Audience {
        Audience { worker: worker.clone(), shared: shared.clone(), shown, whose }
    }

    /// The most bytes that a body may have, if one of them wants to see it as a whole.
    pub fn whole(&self) -> Option<usize> {
        let most = |shown: &Shown| match shown.how {
            Show::Pieces => None,
            Show::Whole(most) => Some(most as usize),
        };
        self.shown.iter().filter_map(most).min()
    }

    /// Shows a piece to one after the other; what is left of it.
    ///
    /// # Errors
    /// If one of them answers instead, or failed and may not: what it said is then in the exchange.
    fn show(&self, bytes: Bytes, last: bool, whole: bool) -> Result<Bytes, BodyError> {
        let snapshot = self.worker.snapshot();
        let mut bytes = bytes;
        for shown in &self.shown {
            let in_pieces = shown.how == Show::Pieces && bytes.len() > PIECE;
            let most = if in_pieces { PIECE } else { usize::MAX };
            let mut made: Option<Vec<u8>> = None;
            let mut at = 0_usize;
            loop {
                let end = bytes.len().min(at.saturating_add(most));
                let last = last && end == bytes.len();
                let piece = Piece { bytes: &bytes[at..end], last, whole };
                let step = match self.whose {
                    Whose::Request => Step::RequestBody(piece),
                    Whose::Response => Step::ResponseBody(piece),
                };
                let called =
                    self.shared.lend(|exchange| filter::call(&self.worker, &snapshot, shown.filter(), exchange, step));
                match called {
                    Some(Ok((Verdict::Next, _))) => {
                        made.iter_mut().for_each(|made| made.extend_from_slice(&bytes[at..end]));
                    }
                    Some(Ok((Verdict::Replace(by), _))) => {
                        made.get_or_insert_with(|| bytes[..at].to_vec()).extend_from_slice(&by);
                    }
                    Some(Ok((Verdict::Respond(head, body), _))) => {
                        self.shared.say(Ok(reply::by_filter(head, body)));
                        return Err(BodyError::Refused);
                    }
                    Some(Err(error)) => {
                        self.shared.say(Err(error));
                        return Err(BodyError::Refused);
                    }
                    None => return Err(BodyError::Refused),
                }
                at = end;
                if at == bytes.len() {
                    break;
                }
            }
            if let Some(made) = made {
                bytes = made.into();
            }
        }
        Ok(bytes)
    }

    /// Gathers a body to its end, and shows it.
    ///
    /// # Errors
    /// If it cannot be read to its end, is longer than `most` bytes, or is refused. `patience`: of those who wait for it;
    /// none where the source has its own.
    pub async fn gather(
        &self,
        source: &mut impl Source,
        most: usize,
        mut patience: Option<Patience>,
    ) -> Result<Bytes, BodyError> {
        let mut gathered = Vec::new();
        let mut timer = Timer::default();
        loop {
            let frame = poll_fn(|context| {
                let frame = source.poll_frame(context);
                if let (Poll::Pending, Some(patience)) = (&frame, &mut patience)
                    && timer.poll(patience.deadline(), context).is_ready()
                {
                    return Poll::Ready(Some(Err(BodyError::Slow(patience.idle()))));
                }
                frame
            });
            match frame.await.transpose()? {
                Some(Frame::Data(data)) => {
                    if gathered.len() + data.len() > most {
                        return Err(BodyError::TooLarge);
                    }
                    patience.iter_mut().for_each(|patience| patience.moved(data.len()));
                    gathered.extend_from_slice(&data);
                }
                // They belong to a body of unknown length, which this no longer is.
                Some(Frame::Trailers(_)) => {}
                None => return self.show(gathered.into(), true, true),
            }
        }
    }

    /// The body, shown on its way.
    pub fn through<S>(self, source: S) -> Through<S> {
        Through { source, audience: self, ready: VecDeque::new(), over: false }
    }
}

impl<S: Source> Through<S> {
    /// The next piece; none at the end.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.over {
                return Poll::Ready(None);
            }
            match ready!(self.source.poll_frame(context)).transpose() {
                Ok(Some(Frame::Data(data))) => match self.audience.show(data, false, false) {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::Data(data)))),
                    Err(error) => return self.fail(error),
                },
                Ok(Some(Frame::Trailers(fields))) => self.end(Some(fields))?,
                Ok(None) => self.end(None)?,
                Err(error) => return self.fail(error),
            }
        }
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame, BodyError>>> {
        self.over = true;
        Poll::Ready(Some(Err(error)))
    }

    /// Nothing more comes, but what the filters kept back.
    fn end(&mut self, trailers: Option<Fields>) -> Result<(), BodyError> {
        self.over = true;
        let rest = self.audience.show(Bytes::new(), true, false)?;
        self.ready.extend((!rest.is_empty()).then_some(Frame::Data(rest)));
        self.ready.extend(trailers.map(Frame::Trailers));
        Ok(())
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.over && self.ready.is_empty()
    }

    /// How much is left: nobody knows what filters make of it.
    pub fn length(&self) -> Length {
        if self.is_over() { Length::Known(0) } else { Length::Unknown }
    }
}
