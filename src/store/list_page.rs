//! Pages of the lists of buckets, checked before object_store sees them: it takes any XML for a
//! list, and a page without a token for the last one. A gc that believed such a list would delete
//! packs of trees that it does not see. Pure.

use http::Uri;

use super::answer::AnswerFault;
use super::status::xml_element;

/// Root elements of the lists of S3 and Google, and of Azure.
const ROOTS: [&str; 2] = ["ListBucketResult", "EnumerationResults"];

/// Returns whether a request asks for a page.
pub(super) fn is_asked_by(uri: &Uri) -> bool {
    let is_list = |pair: &str| pair == "list-type=2" || pair == "comp=list";
    uri.query()
        .is_some_and(|query| query.split('&').any(is_list))
}

/// Checks that `body` is a page, and that it leads to the next one if there is one.
pub(super) fn check(body: &[u8]) -> Result<(), AnswerFault> {
    let text = String::from_utf8_lossy(body);
    if !root_of(&text).is_some_and(|root| ROOTS.contains(&root)) {
        return Err(AnswerFault::NoList);
    }

    let is_part = xml_element(&text, "IsTruncated").is_some_and(|is| is.trim() == "true");
    let token = xml_element(&text, "NextContinuationToken");
    match is_part && token.is_none_or(|token| token.trim().is_empty()) {
        true => Err(AnswerFault::UnfinishedList),
        false => Ok(()),
    }
}

/// The name of the first element.
fn root_of(text: &str) -> Option<&str> {
    let mut rest = text;
    loop {
        let (_, tag) = rest.split_once('<')?;
        if !tag.starts_with(['?', '!']) {
            let end = tag.find(|c: char| c.is_whitespace() || matches!(c, '>' | '/'));
            return tag.get(..end?);
        }
        (_, rest) = tag.split_once('>')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_pages_of_lists_pass() {
        let page =
            |inner: &str| format!("<ListBucketResult xmlns=\"x\">{inner}</ListBucketResult>");
        let is_part = "<IsTruncated>true</IsTruncated>";
        let token = |token: &str| format!("<NextContinuationToken>{token}</NextContinuationToken>");
        for good in [
            page(""),
            format!("<?xml version=\"1.0\"?>\n<!-- a list -->{}", page("")),
            page("<IsTruncated>false</IsTruncated>"),
            page(&format!("{is_part}{}", token("more"))),
            "<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>".into(),
            "<ListBucketResult/>".into(),
        ] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }

        for bad in [
            "",
            "ok",
            "<",
            "<html></html>",
            "<Error><Code>SlowDown</Code></Error>",
        ] {
            assert_eq!(check(bad.as_bytes()), Err(AnswerFault::NoList), "{bad}");
        }
        for bad in [page(is_part), page(&format!("{is_part}{}", token(" ")))] {
            assert_eq!(
                check(bad.as_bytes()),
                Err(AnswerFault::UnfinishedList),
                "{bad}"
            );
        }
    }

    #[test]
    fn requests_for_pages_are_known() {
        let is_page = |uri: &str| is_asked_by(&uri.parse().expect("valid"));
        assert!(is_page("http://host/b?list-type=2&prefix=a"));
        assert!(is_page("http://host/b?restype=container&comp=list"));
        assert!(!is_page("http://host/b/list-type=2"));
        assert!(!is_page("http://host/b?list-type=20"));
    }
}
