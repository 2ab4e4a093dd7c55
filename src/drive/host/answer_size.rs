//! Shortens answers to queries until they fit in a message: a larger one would not be read.

use super::machine_report::without_warnings;
use crate::wire::message::MAX_MESSAGE_BYTES;
use crate::wire::query::{QueryAnswer, TreeReport};

/// Bytes that the message around an answer has at most.
const FRAME_BYTES: usize = 16;
/// Characters of a trouble in an answer that is too large.
const SHORT_TROUBLE: usize = 64;

/// Shortens `answer`, the least important first.
pub(super) fn fitted(mut answer: QueryAnswer) -> QueryAnswer {
    if fits(&answer) {
        return answer;
    }

    tracing::debug!("an answer to a query is too large: it is shortened");
    without_messages(&mut answer);
    if !fits(&answer) {
        without_pauses(&mut answer);
    }
    if !fits(&answer)
        && let Some(machine) = &mut answer.machine
    {
        without_warnings(machine);
    }
    while !fits(&answer) {
        let shortened = answer.trees.iter_mut().map(older);
        if shortened.filter(|is_shorter| *is_shorter).count() == 0 {
            break;
        }
    }
    if !fits(&answer) {
        answer.trees.iter_mut().for_each(short_troubles);
    }

    answer
}

fn fits(answer: &QueryAnswer) -> bool {
    minicbor::to_vec(answer).is_ok_and(|bytes| bytes.len() + FRAME_BYTES <= MAX_MESSAGE_BYTES)
}

fn without_messages(answer: &mut QueryAnswer) {
    for tree in &mut answer.trees {
        tree.message = None;
        tree.releases
            .iter_mut()
            .for_each(|release| release.message = None);
    }
}

/// Removes the batches of staged releases.
fn without_pauses(answer: &mut QueryAnswer) {
    let staged = answer
        .trees
        .iter_mut()
        .filter_map(|tree| tree.staged.as_mut());
    staged.for_each(|staged| staged.paused = None);
}

/// Removes the older half of the releases; returns whether there was one.
fn older(tree: &mut TreeReport) -> bool {
    let before = tree.releases.len();
    tree.releases.truncate(before.div_ceil(2));
    tree.releases.len() < before
}

fn short_troubles(tree: &mut TreeReport) {
    let trouble = tree.trouble.iter_mut().map(|trouble| &mut trouble.text);
    let repository = tree.repository.iter_mut().map(|trouble| &mut trouble.text);
    for text in trouble.chain(repository) {
        *text = text.chars().take(SHORT_TROUBLE).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{HostName, Serial, TreeName};
    use crate::manifest::ReleaseMessage;
    use crate::wire::Message;
    use crate::wire::message::MAX_MESSAGE_TREES;
    use crate::wire::query::Trouble;

    fn answer(message: bool, text: &str) -> QueryAnswer {
        let message = message.then(|| {
            let longest = "\u{1f40c}".repeat(ReleaseMessage::MAX_CHARS);
            ReleaseMessage::new(&longest).expect("legal")
        });
        let tree = |n: usize| TreeReport {
            message: message.clone(),
            trouble: Some(Trouble {
                serial: Serial(7),
                age: 1,
                text: text.to_string(),
            }),
            ..TreeReport::nothing(TreeName::new(&format!("tree{n}")).expect("legal"))
        };
        QueryAnswer {
            number: 1,
            host: HostName::new("web1").expect("legal"),
            trees: (0..MAX_MESSAGE_TREES).map(tree).collect(),
            release: None,
            labels: None,
            machine: None,
            followed: None,
            refusal: None,
        }
    }

    #[test]
    fn an_answer_always_fits_in_a_message() {
        let small = answer(false, "disk full");
        assert_eq!(fitted(small.clone()), small);
        assert_eq!(fitted(answer(true, "disk full")), small);

        for text in ["a".repeat(4096), "\u{1f40c}".repeat(128)] {
            let told = fitted(answer(true, &text));
            assert_eq!(told.trees.len(), MAX_MESSAGE_TREES);
            let bytes = Message::Answer(told).encode();
            assert!(bytes.len() <= MAX_MESSAGE_BYTES, "{}", bytes.len());
            assert!(Message::decode(&bytes).is_ok());
        }
    }
}
