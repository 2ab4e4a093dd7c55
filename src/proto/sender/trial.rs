//! Trial of a host that is congested alone: the rate ignores it until the reports show whether it
//! is far slower than the others. Otherwise the rate would drop to that host's before the others
//! have shown how much more they can take.

use std::time::Duration;

use crate::units::Moment;

/// Reports of the host after which a trial ends without a result.
pub const TRIAL_REPORTS: u32 = 64;
/// Time that these have to cover.
const TRIAL_TIME: Duration = Duration::from_millis(500);
/// Consecutive congested reports in a trial after which the others are offered more.
const PROBE_REPORTS: u32 = 8;
/// Time from a trial without a result to the next one; doubled each time.
pub const FIRST_TRIAL_PAUSE: Duration = Duration::from_secs(1);
/// Longest such time.
const MAX_TRIAL_PAUSE: Duration = Duration::from_secs(16);

/// Trials of one host.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    state: TrialState,
    /// Pause after the next trial without a result.
    pause: Duration,
}

/// State of a trial.
#[derive(Debug, Clone, Copy)]
enum TrialState {
    /// May begin from this time on, or once the host receives fewer bits a second than `below`.
    Due { from: Moment, below: f64 },
    /// Has been running for so many reports, which cover `time`.
    Running {
        reports: u32,
        time: Duration,
        is_probed: bool,
    },
}

/// What a report shows of its host.
#[derive(Debug, Clone, Copy)]
pub struct TrialReport {
    /// The host is congested, and few others are.
    pub alone: bool,
    /// Received bits a second, smoothed.
    pub received: f64,
    /// Time since the previous report.
    pub over: Duration,
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            state: TrialState::Due {
                from: Moment(0),
                below: 0.0,
            },
            pause: FIRST_TRIAL_PAUSE,
        }
    }
}

impl Trial {
    /// Returns whether a trial is running.
    pub fn is_running(&self) -> bool {
        matches!(self.state, TrialState::Running { .. })
    }

    /// Starts or ends the trial. Returns whether it is running.
    pub fn on_report(&mut self, now: Moment, report: TrialReport) -> bool {
        let TrialReport {
            alone,
            received,
            over,
        } = report;

        match &mut self.state {
            // If the others are congested as well, the trial showed nothing.
            TrialState::Running { .. } if !alone => {
                self.state = TrialState::Due {
                    from: now,
                    below: 0.0,
                };
            }
            TrialState::Running { reports, time, .. } => {
                *reports += 1;
                *time += over;
                if *reports >= TRIAL_REPORTS && *time >= TRIAL_TIME {
                    self.state = TrialState::Due {
                        from: now + self.pause,
                        below: received / 2.0,
                    };
                    self.pause = (self.pause * 2).min(MAX_TRIAL_PAUSE);
                }
            }
            TrialState::Due { from, below } if alone && (now >= *from || received < *below) => {
                self.state = TrialState::Running {
                    reports: 0,
                    time: Duration::ZERO,
                    is_probed: false,
                };
            }
            TrialState::Due { .. } => {}
        }

        self.is_running()
    }

    /// Returns whether the others are to be offered more now, once in each trial, after
    /// `congested` consecutive congested reports: a trial shows nothing at the rate of the host.
    pub fn begins_probe(&mut self, congested: u32) -> bool {
        match &mut self.state {
            TrialState::Running { is_probed, .. } if congested >= PROBE_REPORTS => {
                !std::mem::replace(is_probed, true)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(10);

    fn report(alone: bool, received: f64) -> TrialReport {
        TrialReport {
            alone,
            received,
            over: INTERVAL,
        }
    }

    #[test]
    fn a_trial_without_a_result_is_repeated_ever_more_rarely() {
        let mut trial = Trial::default();
        let mut began = Vec::new();
        for n in 0..6000 {
            let was_running = trial.is_running();
            let now = Moment(0) + INTERVAL * n;
            if trial.on_report(now, report(true, 1e6)) && !was_running {
                began.push(n);
            }
        }

        let pauses: Vec<u32> = began.windows(2).map(|two| two[1] - two[0]).collect();
        assert_eq!(
            pauses,
            [1, 2, 4, 8, 16, 16].map(|s| s * 100 + TRIAL_REPORTS)
        );
    }

    #[test]
    fn a_trial_takes_as_many_reports_however_late_they_are() {
        let mut trial = Trial::default();
        for n in 0..TRIAL_REPORTS {
            let now = Moment(0) + Duration::from_millis(400) * n;
            assert!(trial.on_report(now, report(true, 1e6)), "{n}");
        }
    }

    #[test]
    fn a_trial_begins_anew_as_soon_as_the_others_are_well_or_the_host_gets_half() {
        let mut trial = Trial::default();
        assert!(trial.on_report(Moment(1), report(true, 1e6)));
        assert!(!trial.on_report(Moment(2), report(false, 1e6)));
        assert!(trial.on_report(Moment(3), report(true, 1e6)));

        while trial.on_report(Moment(4), report(true, 1e6)) {}
        assert!(!trial.on_report(Moment(5), report(true, 6e5)));
        assert!(trial.on_report(Moment(6), report(true, 4e5)));
    }

    #[test]
    fn the_others_are_offered_more_once_in_a_trial() {
        let mut trial = Trial::default();
        assert!(!trial.begins_probe(PROBE_REPORTS));
        trial.on_report(Moment(1), report(true, 1e6));
        let probes = [0, PROBE_REPORTS - 1, PROBE_REPORTS, PROBE_REPORTS + 1];
        let begun = probes.map(|congested| trial.begins_probe(congested));
        assert_eq!(begun, [false, false, true, false]);
    }
}
