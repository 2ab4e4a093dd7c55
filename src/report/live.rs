//! Looks at the fleet that follow each other: redrawn on a terminal, a line for each change
//! elsewhere.

use serde::Serialize;

use super::{HumanReport, Json, Report, fleet};
use crate::outcome::{MemberInfo, Standing, Survey};

/// A host that no longer answers, for scripts.
#[derive(Serialize)]
struct GoneLine<'a> {
    event: &'static str,
    host: &'a str,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tree: Option<&'a str>,
}

impl Report {
    /// Shows a further look of `makuo status --watch`.
    pub fn status_look(
        &mut self,
        before: Option<&Survey<Vec<Standing>>>,
        now: &Survey<Vec<Standing>>,
    ) {
        let old = before.map_or(&[][..], |before| &before.found);
        let key = |s: &Standing| (s.host.clone(), s.address, s.tree.clone());
        let changes = fleet::FleetChanges::between(old, &now.found, key, fleet::is_same_standing);

        match self {
            Report::HumanReport(human) if human.redraws() => {
                human.redraw(|human| human.status(now));
            }
            Report::HumanReport(human) => {
                human.changed_rows(&fleet::standings(&changes.new));
                for gone in &changes.gone {
                    human.changed_line(&format!("{}  {}  gone", gone.named, gone.tree));
                }
                tell_new_strangers(human, before, now);
            }
            Report::Json(json) => {
                for standing in &changes.new {
                    json.put(&fleet::StandingLine::new(standing));
                }
                for gone in &changes.gone {
                    json.put(&GoneLine {
                        event: "gone",
                        host: gone.host.as_str(),
                        address: gone.address.to_string(),
                        tree: Some(gone.tree.as_str()),
                    });
                }
                put_new_strangers(json, before, now);
            }
        }
    }

    /// Shows a further look of `makuo members --watch`.
    pub fn members_look(
        &mut self,
        before: Option<&Survey<Vec<MemberInfo>>>,
        now: &Survey<Vec<MemberInfo>>,
    ) {
        let old = before.map_or(&[][..], |before| &before.found);
        let key = |m: &MemberInfo| (m.host.clone(), m.address);
        let changes = fleet::FleetChanges::between(old, &now.found, key, PartialEq::eq);

        match self {
            Report::HumanReport(human) if human.redraws() => {
                human.redraw(|human| human.members(now));
            }
            Report::HumanReport(human) => {
                human.changed_rows(&fleet::members(&changes.new));
                for gone in &changes.gone {
                    human.changed_line(&format!("{}  {}  gone", gone.host, gone.address));
                }
                tell_new_strangers(human, before, now);
            }
            Report::Json(json) => {
                changes.new.iter().for_each(|member| json.member(member));
                for gone in &changes.gone {
                    json.put(&GoneLine {
                        event: "gone",
                        host: gone.host.as_str(),
                        address: gone.address.to_string(),
                        tree: None,
                    });
                }
                put_new_strangers(json, before, now);
            }
        }
    }

    /// Ends the looks of `makuo status --watch`; a script gets the result of the last one.
    pub fn status_looked(&mut self, last: &Survey<Vec<Standing>>) {
        if let Report::Json(json) = self {
            json.status_result(last);
        }
    }

    /// Ends the looks of `makuo members --watch`.
    pub fn members_looked(&mut self, last: &Survey<Vec<MemberInfo>>) {
        if let Report::Json(json) = self {
            json.members_result(last);
        }
    }
}

/// Peers that were not there at the look before.
fn new_strangers<T>(before: Option<&Survey<T>>, now: &Survey<T>) -> Vec<crate::outcome::Stranger> {
    let known = before.map_or(&[][..], |before| &before.strangers);
    let new = now.strangers.iter().filter(|s| !known.contains(s));
    new.copied().collect()
}

fn tell_new_strangers<T>(human: &mut HumanReport, before: Option<&Survey<T>>, now: &Survey<T>) {
    let was_silent = before.is_some_and(|before| before.silence.is_some());
    if let Some(silence) = now.silence.as_ref().filter(|_| !was_silent) {
        human.note(&format!("{} ({})", silence.error, silence.hint));
    }
    human.strangers(&new_strangers(before, now));
}

fn put_new_strangers<T>(json: &mut Json, before: Option<&Survey<T>>, now: &Survey<T>) {
    json.strangers(&new_strangers(before, now));
}
