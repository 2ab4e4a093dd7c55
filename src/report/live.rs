//! Looks at the fleet that follow each other: redrawn on a terminal, a line for each change
//! elsewhere.

use serde::Serialize;

use super::table::TextTable;
use super::{HumanReport, Json, Report, fleet};
use crate::outcome::{MemberInfo, Standing, Stranger, Survey};

/// What a look finds of one host: an entry of a survey.
pub trait Looked: Clone {
    /// Returns whether both entries are of one host and tree.
    fn is_of(&self, other: &Self) -> bool;
    /// Returns whether both entries say the same, apart from ages.
    fn says_same(&self, other: &Self) -> bool;
    /// Formats one row for each entry.
    fn rows(entries: &[Self]) -> TextTable;
    /// Shows a whole look.
    fn show(human: &mut HumanReport, look: &Survey<Vec<Self>>);
    /// Writes the entry for scripts.
    fn put(&self, json: &mut Json);
    /// Writes the result of the last look for scripts.
    fn put_result(json: &mut Json, look: &Survey<Vec<Self>>);
    /// Describes a host that no longer answers.
    fn gone(&self) -> GoneLine<'_>;
}

/// A host that no longer answers.
#[derive(Serialize)]
pub struct GoneLine<'a> {
    event: &'static str,
    host: &'a str,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tree: Option<&'a str>,
}

impl Report {
    /// Shows a further look.
    pub fn look<T: Looked>(&mut self, before: Option<&Survey<Vec<T>>>, now: &Survey<Vec<T>>) {
        let old = before.map_or(&[][..], |before| &before.found);
        let is_news = |entry: &&T| !old.iter().any(|o| o.is_of(entry) && o.says_same(entry));
        let news: Vec<T> = now.found.iter().filter(is_news).cloned().collect();
        let is_gone = |entry: &&T| !now.found.iter().any(|n| n.is_of(entry));
        let gone = old.iter().filter(is_gone).map(T::gone);
        let strangers = new_strangers(before, now);

        match self {
            Report::HumanReport(human) if human.redraws() => human.redraw(|h| T::show(h, now)),
            Report::HumanReport(human) => {
                human.changed_rows(&T::rows(&news));
                for GoneLine { host, tree, .. } in gone {
                    human.changed_line(&format!("{host}  {}  gone", tree.unwrap_or_default()));
                }
                tell_silence(human, before, now);
                human.strangers(&strangers);
            }
            Report::Json(json) => {
                news.iter().for_each(|entry| entry.put(json));
                gone.for_each(|line| json.put(&line));
                json.strangers(&strangers);
            }
        }
    }

    /// Ends the looks; a script gets the result of the last one.
    pub fn looked<T: Looked>(&mut self, last: &Survey<Vec<T>>) {
        if let Report::Json(json) = self {
            T::put_result(json, last);
        }
    }
}

/// Peers that were not there at the look before.
fn new_strangers<T>(before: Option<&Survey<T>>, now: &Survey<T>) -> Vec<Stranger> {
    let known = before.map_or(&[][..], |before| &before.strangers);
    let new = now.strangers.iter().filter(|s| !known.contains(s));
    new.copied().collect()
}

/// Says why nobody answers, once.
fn tell_silence<T>(human: &mut HumanReport, before: Option<&Survey<T>>, now: &Survey<T>) {
    let was_silent = before.is_some_and(|before| before.silence.is_some());
    if let Some(silence) = now.silence.as_ref().filter(|_| !was_silent) {
        human.note(&format!("{} ({})", silence.error, silence.hint));
    }
}

impl Looked for Standing {
    fn is_of(&self, other: &Self) -> bool {
        (&self.host, self.address, &self.tree) == (&other.host, other.address, &other.tree)
    }

    fn says_same(&self, other: &Self) -> bool {
        without_ages(self) == without_ages(other)
    }

    fn rows(entries: &[Self]) -> TextTable {
        fleet::standings(entries)
    }

    fn show(human: &mut HumanReport, look: &Survey<Vec<Self>>) {
        human.status(look);
    }

    fn put(&self, json: &mut Json) {
        json.put(&fleet::StandingLine::new(self));
    }

    fn put_result(json: &mut Json, look: &Survey<Vec<Self>>) {
        json.status_result(look);
    }

    fn gone(&self) -> GoneLine<'_> {
        GoneLine {
            event: "gone",
            host: self.host.as_str(),
            address: self.address.to_string(),
            tree: Some(self.tree.as_str()),
        }
    }
}

/// The standing without what changes by itself.
fn without_ages(standing: &Standing) -> Standing {
    let mut standing = standing.clone();
    if let Some(status) = &mut standing.status {
        status.trouble.iter_mut().for_each(|t| t.age = 0);
        status.stale.iter_mut().for_each(|s| s.age = 0);
        status.repository.iter_mut().for_each(|r| r.age = 0);
        status.drifted.iter_mut().for_each(|d| d.looks = 0);
    }

    standing
}

impl Looked for MemberInfo {
    fn is_of(&self, other: &Self) -> bool {
        (&self.host, self.address) == (&other.host, other.address)
    }

    fn says_same(&self, other: &Self) -> bool {
        self == other
    }

    fn rows(entries: &[Self]) -> TextTable {
        fleet::members(entries)
    }

    fn show(human: &mut HumanReport, look: &Survey<Vec<Self>>) {
        human.members(look);
    }

    fn put(&self, json: &mut Json) {
        json.member(self);
    }

    fn put_result(json: &mut Json, look: &Survey<Vec<Self>>) {
        json.members_result(look);
    }

    fn gone(&self) -> GoneLine<'_> {
        GoneLine {
            event: "gone",
            host: self.host.as_str(),
            address: self.address.to_string(),
            tree: None,
        }
    }
}
