//! The jobs of a scan and the threads that do them: directories are listed before files are read, since a listing
//! is what makes more work.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::sync::locked;
use crate::{Error, Kind, Result};

/// A job's result, once it is there.
#[derive(Debug)]
pub(super) struct Ticket<T>(Receiver<Result<T>>);

impl<T> Ticket<T> {
    pub(super) fn wait(self) -> Result<T> {
        self.0
            .recv()
            .unwrap_or_else(|_| Err(Error::new(Kind::Io, "a thread of the scan ended early")))
    }
}

/// What one thread is to do, and where the result goes.
#[derive(Debug)]
pub(super) struct Job<I, O> {
    input: I,
    answer: SyncSender<Result<O>>,
}

impl<I, O> Job<I, O> {
    /// Does the job and hands the result over.
    pub(super) fn run(self, work: impl FnOnce(I) -> Result<O>) {
        // Nobody waits any more when the scan has failed elsewhere.
        let _ = self.answer.send(work(self.input));
    }
}

/// Two queues of jobs, the first one before the second.
#[derive(Debug)]
pub(super) struct Queue<A, B, C, D> {
    state: Mutex<State<Job<A, B>, Job<C, D>>>,
    filled: Condvar,
}

#[derive(Debug)]
struct State<F, S> {
    first: VecDeque<F>,
    second: VecDeque<S>,
    closed: bool,
}

/// A job of either queue.
#[derive(Debug)]
pub(super) enum Next<F, S> {
    First(F),
    Second(S),
}

impl<A, B, C, D> Queue<A, B, C, D> {
    pub(super) fn new() -> Self {
        let state = State {
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

    /// The next job; `None` when the queue was closed.
    pub(super) fn next(&self) -> Option<Next<Job<A, B>, Job<C, D>>> {
        let mut state = locked(&self.state);
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.first.pop_front() {
                return Some(Next::First(job));
            }
            if let Some(job) = state.second.pop_front() {
                return Some(Next::Second(job));
            }
            state = self
                .filled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the threads after the jobs that they are at; what is queued is not done.
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
