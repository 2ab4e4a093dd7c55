//! Requests and notices that wait for the owner of a host.

use std::collections::VecDeque;

use super::disk::DiskRequest;
use super::notice::HostNotice;

/// Queued requests to the disk and notices, in order.
#[derive(Debug, Default)]
pub(super) struct Effects {
    requests: VecDeque<DiskRequest>,
    notices: VecDeque<HostNotice>,
}

impl Effects {
    /// Queues a request to the disk.
    pub(super) fn request(&mut self, request: DiskRequest) {
        self.requests.push_back(request);
    }

    /// Queues a notice.
    pub(super) fn notify(&mut self, notice: HostNotice) {
        self.notices.push_back(notice);
    }

    /// Appends the queues of `other` and empties them.
    pub(super) fn append(&mut self, other: &mut Effects) {
        self.requests.append(&mut other.requests);
        self.notices.append(&mut other.notices);
    }

    /// Returns the next request.
    pub(super) fn next_request(&mut self) -> Option<DiskRequest> {
        self.requests.pop_front()
    }

    /// Returns the next notice.
    pub(super) fn next_notice(&mut self) -> Option<HostNotice> {
        self.notices.pop_front()
    }

    /// Returns true if nothing is queued.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.notices.is_empty()
    }
}
