//! Rate limit of answers outside of sessions, for each address and for all together: the address of
//! a question may be forged.

use std::net::IpAddr;
use std::time::Duration;

use crate::units::Moment;

/// Time over which answers are counted.
pub(super) const RATE_WINDOW: Duration = Duration::from_secs(1);

/// Answers that one host may give.
#[derive(Debug)]
pub struct AnswerBudget {
    /// Answers to one address in [`RATE_WINDOW`].
    per_address: u32,
    /// Answers to all addresses in that time.
    in_all: u32,
    /// Answers to each address since `since`; at most `in_all` entries.
    answered: Vec<(IpAddr, u32)>,
    since: Moment,
}

impl AnswerBudget {
    /// A budget of `per_address` answers to one address in a second, and of `in_all` to all.
    pub fn new(now: Moment, per_address: u32, in_all: u32) -> Self {
        Self {
            per_address,
            in_all,
            answered: Vec::new(),
            since: now,
        }
    }

    /// Takes one answer to `asker` from the budget; returns false if none is left.
    pub fn take(&mut self, now: Moment, asker: IpAddr) -> bool {
        if now.since(self.since) >= RATE_WINDOW {
            self.since = now;
            self.answered.clear();
        }

        if self.answered.iter().map(|(_, n)| n).sum::<u32>() >= self.in_all {
            return false;
        }

        match self.answered.iter_mut().find(|(ip, _)| *ip == asker) {
            Some((_, count)) if *count >= self.per_address => return false,
            Some((_, count)) => *count += 1,
            None => self.answered.push((asker, 1)),
        }

        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_for_each_address_and_for_all_and_begins_again() {
        let start = Moment(1_000_000_000);
        let mut budget = AnswerBudget::new(start, 2, 5);
        let asker = |n: u8| IpAddr::from([10, 0, 0, n]);
        let taken =
            |budget: &mut AnswerBudget, at, n| (0..9).filter(|_| budget.take(at, asker(n))).count();

        let counts = [1, 2, 3, 4].map(|n| taken(&mut budget, start, n));
        assert_eq!(counts, [2, 2, 1, 0]);
        assert_eq!(taken(&mut budget, start + RATE_WINDOW, 4), 2);
    }

    #[test]
    fn a_flood_of_addresses_takes_little_memory() {
        let mut budget = AnswerBudget::new(Moment(0), 2, 5);
        for n in 0..10_000_u32 {
            budget.take(Moment(1), IpAddr::from(n.to_be_bytes()));
        }
        assert_eq!(budget.answered.len(), 5);
    }
}
