//! HTML under construction. Text and values of attributes are always escaped.

use std::fmt::Write;

/// A part of a page.
#[derive(Debug, Default)]
pub(super) struct Markup {
    out: String,
}

/// Names and values of attributes.
pub(super) type Attributes<'a> = &'a [(&'static str, &'a str)];

impl Markup {
    /// Writes markup as it is.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.out.push_str(markup);
        self
    }

    /// Writes text.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                '\'' => self.out.push_str("&#39;"),
                c => self.out.push(c),
            }
        }
        self
    }

    /// Begins an element.
    pub(super) fn open(&mut self, tag: &'static str, attributes: Attributes<'_>) -> &mut Self {
        // Writing to a String cannot fail.
        let _ = write!(self.out, "<{tag}");
        for (name, value) in attributes {
            let _ = write!(self.out, " {name}=\"");
            self.text(value);
            self.out.push('"');
        }
        self.out.push('>');
        self
    }

    /// Ends an element.
    pub(super) fn close(&mut self, tag: &'static str) -> &mut Self {
        let _ = write!(self.out, "</{tag}>");
        self
    }

    /// Writes an element with text.
    pub(super) fn element(
        &mut self,
        tag: &'static str,
        attributes: Attributes<'_>,
        text: &str,
    ) -> &mut Self {
        self.open(tag, attributes).text(text).close(tag)
    }

    /// Writes a link to a page of this server.
    pub(super) fn link(&mut self, path: &[&str], text: &str) -> &mut Self {
        self.element("a", &[("href", &path_of(path))], text)
    }

    /// The text.
    pub(super) fn finish(self) -> String {
        self.out
    }
}

/// Path with these segments, percent-encoded.
fn path_of(segments: &[&str]) -> String {
    if segments.is_empty() {
        return "/".to_string();
    }

    let mut path = String::new();
    for segment in segments {
        path.push('/');
        for byte in segment.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                    path.push(char::from(byte));
                }
                byte => {
                    let _ = write!(path, "%{byte:02X}");
                }
            }
        }
    }
    path
}

/// The segments of a path, decoded; `None` for one that is not legal.
pub(super) fn segments_of(path: &str) -> Option<Vec<String>> {
    let rest = path.strip_prefix('/')?;
    if rest.is_empty() {
        return Some(Vec::new());
    }
    rest.split('/').map(decoded).collect()
}

fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_becomes_markup() {
        let name = "<script>alert('x')</script>&\"/../?#";
        let mut markup = Markup::default();
        markup.link(&["host", name], name);
        markup.element("p", &[("title", name)], name);
        let out = markup.finish();
        assert_eq!(out.matches('<').count(), 4, "{out}");
        assert!(!out.contains("script>") && !out.contains("'x'"), "{out}");
        assert!(out.starts_with("<a href=\"/host/%3Cscript%3Ealert%28%27x%27%29%3C%2Fscript"));
    }

    #[test]
    fn paths_are_decoded_as_they_were_encoded() {
        for name in ["web1", "ö ü", "%", "a/b", "..", "+"] {
            let path = path_of(&["host", name]);
            let segments = segments_of(&path).expect("legal");
            assert_eq!(segments, ["host", name]);
        }
        assert_eq!((path_of(&[]), segments_of("/")), ("/".into(), Some(vec![])));
        for wrong in ["", "x", "//", "/a/", "/%", "/%4", "/%zz", "/%FF", "/host//"] {
            assert_eq!(segments_of(wrong), None, "{wrong}");
        }
    }
}
