//! The job queue of a scan and its worker threads.
//!
//! Listings go before reads, since listings create more work.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::sync::locked;
use crate::{Error, Kind, Result};

/// Handle to the result of a job.
#[derive(Debug)]
pub(super) struct Ticket<T>(Receiver<Result<T>>);

impl<T> Ticket<T> {
    pub(super) fn wait(self) -> Result<T> {
        self.0
            .recv()
            .unwrap_or_else(|_| Err(Error::new(Kind::Io, "a thread of the scan ended early")))
    }
}

/// A job of one thread, with the channel for its result.
#[derive(Debug)]
pub(super) struct Job<I, O> {
    input: I,
    answer: SyncSender<Result<O>>,
}

impl<I, O> Job<I, O> {
    /// Runs the job and sends the result.
    pub(super) fn run(self, work: impl FnOnce(I) -> Result<O>) {
        // After a failure elsewhere nobody receives the result.
        let _ = self.answer.send(work(self.input));
    }
}

/// Two job queues; the first has priority.
#[derive(Debug)]
pub(super) struct JobQueue<A, B, C, D> {
    state: Mutex<QueueState<Job<A, B>, Job<C, D>>>,
    filled: Condvar,
}

#[derive(Debug)]
struct QueueState<F, S> {
    first: VecDeque<F>,
    second: VecDeque<S>,
    closed: bool,
}

/// A job from either queue.
#[derive(Debug)]
pub(super) enum NextJob<F, S> {
    First(F),
    Second(S),
}

impl<A, B, C, D> JobQueue<A, B, C, D> {
    pub(super) fn new() -> Self {
        let state = QueueState {
            first: VecDeque::new(),
            second: VecDeque::new(),
            closed: false,
        };

        Self {
            state: Mutex::new(state),
            filled: Condvar::new(),
        }
    }

    pub(super) fn first(&self, input: A) -> Ticket<B> {
        let (answer, ticket) = sync_channel(1);
        locked(&self.state).first.push_back(Job { input, answer });
        self.filled.notify_one();
        Ticket(ticket)
    }

    pub(super) fn second(&self, input: C) -> Ticket<D> {
        let (answer, ticket) = sync_channel(1);
        locked(&self.state).second.push_back(Job { input, answer });
        self.filled.notify_one();
        Ticket(ticket)
    }

    /// Returns the next job; `None` once closed.
    pub(super) fn next(&self) -> Option<NextJob<Job<A, B>, Job<C, D>>> {
        let mut state = locked(&self.state);
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.first.pop_front() {
                return Some(NextJob::First(job));
            }
            if let Some(job) = state.second.pop_front() {
                return Some(NextJob::Second(job));
            }

            state = self
                .filled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Stops the threads after their current jobs; queued jobs are dropped.
    pub(super) fn close(&self) {
        let mut state = locked(&self.state);
        state.closed = true;
        state.first.clear();
        state.second.clear();
        self.filled.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        locked(&self.state).closed
    }
}
