//! Reads values that several tables have: paths and small numbers.

use std::path::Component;

use super::*;
use crate::spec::document::{Field, Section};
use crate::units::printable;

/// Longest path of a unix socket, in bytes.
const MAX_SOCKET: usize = 107;

pub(super) fn small<T: TryFrom<i64>>(
    section: &mut Section,
    key: &str,
    range: RangeInclusive<i64>,
    what: &str,
) -> Result<Option<T>> {
    let number = section
        .take(key)
        .map(|f| f.number(range, what))
        .transpose()?;
    Ok(number.and_then(|n| T::try_from(n).ok()))
}

pub(super) fn read_socket(field: &Field) -> Result<PathBuf> {
    let path = absolute(field)?;
    if path.as_os_str().len() > MAX_SOCKET {
        return Err(field.wrong(format!(
            "the path of a socket has at most {MAX_SOCKET} bytes"
        )));
    }
    Ok(path)
}

/// Absolute path without `..`. Trailing and doubled slashes are removed, so that paths compare.
pub(super) fn absolute(field: &Field) -> Result<PathBuf> {
    let text = field.text()?;
    let path = Path::new(text);
    if !path.is_absolute()
        || text.contains('\0')
        || path.components().any(|c| c == Component::ParentDir)
    {
        let shown = printable(text.as_bytes());
        return Err(field.wrong(format!(
            "{shown:?} is not an absolute path without \"..\", as in \"/var/www\""
        )));
    }

    Ok(path.components().collect())
}
