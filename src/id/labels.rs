//! Labels of a host: words by which targets and batches select hosts, such as `zone=a`.
//!
//! A host tells its own labels, and nobody checks them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::{MAX_NAME, check_name};

/// Labels of one host: values by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(
    try_from = "BTreeMap<String, String>",
    into = "BTreeMap<String, String>"
)]
pub struct Labels(Arc<BTreeMap<String, String>>);

/// Reason why labels were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A key or a value with other characters than a name.
    #[error("{0}, as in zone = \"a\"")]
    Word(#[from] super::NameError),
    /// More than [`Labels::MAX`].
    #[error("{0} labels are more than the {max} that a host may have", max = Labels::MAX)]
    Many(usize),
}

impl Labels {
    /// Largest number of labels of a host.
    pub const MAX: usize = 16;

    /// Checks labels.
    pub fn new(labels: BTreeMap<String, String>) -> Result<Self, LabelError> {
        if labels.len() > Self::MAX {
            return Err(LabelError::Many(labels.len()));
        }
        for (key, value) in &labels {
            check_label(key, value)?;
        }
        Ok(Self(Arc::new(labels)))
    }

    /// No labels.
    pub fn none() -> &'static Self {
        static NONE: LazyLock<Labels> = LazyLock::new(Labels::default);
        &NONE
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Value of the label `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Parses the text form, `zone=a,role=web`; words that are no labels are left out.
    pub fn parse_known(text: &str) -> Self {
        let pairs = text.split(',').filter_map(|label| label.split_once('='));
        Self::of_known(pairs.map(|(key, value)| (key.to_string(), value.to_string())))
    }

    /// Takes those of the `pairs` that are legal, as far as a host may have them: another version
    /// may allow more.
    fn of_known(pairs: impl Iterator<Item = (String, String)>) -> Self {
        let legal = pairs.filter(|(key, value)| check_label(key, value).is_ok());
        Self(Arc::new(legal.take(Self::MAX).collect()))
    }
}

fn check_label(key: &str, value: &str) -> Result<(), super::NameError> {
    check_name("label", key)?;
    check_name("label", value).map(drop)
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<String> = self.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
        f.pad(&labels.join(","))
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = LabelError;

    fn try_from(labels: BTreeMap<String, String>) -> Result<Self, LabelError> {
        Self::new(labels)
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        Arc::unwrap_or_clone(labels.0)
    }
}

impl<C> Encode<C> for Labels {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.map(self.0.len() as u64)?;
        for (key, value) in self.0.iter() {
            e.str(key)?.str(value)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Labels {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let mut pairs = Vec::new();
        for pair in d.map_iter::<&str, &str>()? {
            let (key, value) = pair?;
            let is_short = key.len() <= MAX_NAME && value.len() <= MAX_NAME;
            if is_short && pairs.len() < Self::MAX {
                pairs.push((key.to_string(), value.to_string()));
            }
        }
        Ok(Self::of_known(pairs.into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn labels_are_bounded_words() {
        let good = Labels::new(labels(&[("zone", "a"), ("role", "web")])).expect("legal");
        assert_eq!(good.to_string(), "role=web,zone=a");
        assert_eq!(Labels::parse_known("role=web,zone=a"), good);

        let long = "x".repeat(65);
        for (key, value) in [
            ("zone", ""),
            ("", "a"),
            ("zone", "a b"),
            ("a=b", "c"),
            ("z", &long),
        ] {
            assert!(
                Labels::new(labels(&[(key, value)])).is_err(),
                "{key}={value}"
            );
        }
        let many = (0..17).map(|n| (format!("k{n}"), "v".to_string()));
        assert_eq!(Labels::new(many.collect()), Err(LabelError::Many(17)));
    }

    #[test]
    fn labels_of_another_host_are_taken_as_far_as_they_are_legal() {
        let decoded = |pairs: &BTreeMap<String, String>| {
            let bytes = minicbor::to_vec(pairs).expect("memory has room");
            minicbor::decode::<Labels>(&bytes).expect("a map")
        };
        let good = labels(&[("zone", "a"), ("role", "web")]);
        assert_eq!(decoded(&good), Labels::new(good.clone()).expect("legal"));

        let mut odd = labels(&[("zone", "\x1b[2J"), ("role", "web"), ("a\nb", "c")]);
        assert_eq!(decoded(&odd).to_string(), "role=web");
        odd.extend((0..1000).map(|n| (format!("k{n}"), "v".to_string())));
        assert!(decoded(&odd).0.len() <= Labels::MAX);
        assert!(minicbor::decode::<Labels>(&[0x61, 0x61]).is_err(), "no map");
    }
}
