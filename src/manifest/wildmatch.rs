//! Wildcards as git matches them, byte by byte.
//!
//! A pattern is compiled once and then matched without allocation. Patterns come from other hosts,
//! so the time of one match is bounded: by the product of both lengths for each directory of the
//! path.

/// A compiled pattern of `*`, `**`, `?`, brackets and escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wildcard {
    tokens: Box<[Token]>,
    /// Literal bytes at the beginning and at the end, which decide most paths.
    prefix: Box<[u8]>,
    suffix: Box<[u8]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`
    Any,
    /// `[..]`
    Class(Box<ByteSet>),
    /// `*`: any bytes within a component.
    Star,
    /// `**/`: any number of directories, at least one unless `none` is allowed.
    Directories {
        none: bool,
    },
    /// `**` at the end: everything.
    Rest,
}

/// Form of a compiled pattern, for a matcher of many patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PatternShape<'a> {
    /// No wildcard: equal bytes match.
    Literal(&'a [u8]),
    /// `*.extension`, without a further dot or slash.
    Extension(&'a [u8]),
    /// Any other form.
    Other,
}

impl Wildcard {
    /// Compiles `pattern`; `None` if nothing can match, as with an unclosed bracket.
    pub(super) fn compile(pattern: &[u8]) -> Option<Self> {
        let mut tokens = Vec::with_capacity(pattern.len());
        let mut at = 0;

        while let Some(&byte) = pattern.get(at) {
            at += 1;
            match byte {
                b'\\' => {
                    tokens.push(Token::Byte(*pattern.get(at)?));
                    at += 1;
                }
                b'?' => tokens.push(Token::Any),
                b'[' => {
                    let (set, end) = ByteSet::parse(pattern, at)?;
                    tokens.push(Token::Class(Box::new(set)));
                    at = end;
                }
                b'*' => {
                    let first = at - 1;
                    while pattern.get(at) == Some(&b'*') {
                        at += 1;
                    }
                    let (token, end) = stars(pattern, first, at);
                    tokens.push(token);
                    at = end;
                }
                literal => tokens.push(Token::Byte(literal)),
            }
        }

        Some(Self::of(tokens))
    }

    fn of(tokens: Vec<Token>) -> Self {
        let literal = |token: &Token| match token {
            Token::Byte(byte) => Some(*byte),
            _ => None,
        };

        let prefix: Box<[u8]> = tokens.iter().map_while(literal).collect();
        let mut suffix: Vec<u8> = tokens.iter().rev().map_while(literal).collect();
        suffix.reverse();

        Self {
            tokens: tokens.into(),
            prefix,
            suffix: suffix.into(),
        }
    }

    /// Returns the form of the pattern.
    pub(super) fn shape(&self) -> PatternShape<'_> {
        if self.prefix.len() == self.tokens.len() {
            return PatternShape::Literal(&self.prefix);
        }

        match (&self.tokens[..], &self.suffix[..]) {
            ([Token::Star, rest @ ..], [b'.', extension @ ..])
                if rest.len() == self.suffix.len()
                    && !extension.contains(&b'.')
                    && !extension.contains(&b'/') =>
            {
                PatternShape::Extension(extension)
            }
            _ => PatternShape::Other,
        }
    }

    /// Returns the pattern of directories in which this one can match; `None` for any directory.
    pub(super) fn directory(&self) -> Option<Self> {
        let is_deep = |token: &Token| matches!(token, Token::Directories { .. } | Token::Rest);
        if self.tokens.iter().any(is_deep) {
            return None;
        }

        let slash = self
            .tokens
            .iter()
            .rposition(|token| *token == Token::Byte(b'/'));
        Some(Self::of(self.tokens[..slash.unwrap_or(0)].to_vec()))
    }

    /// Returns true if the pattern matches the whole of `text`, which has no empty component.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        text.starts_with(&self.prefix) && text.ends_with(&self.suffix) && self.matches_slowly(text)
    }

    fn matches_slowly(&self, text: &[u8]) -> bool {
        // Position to resume from after a mismatch: the last star takes one more byte or directory.
        // Earlier stars need no retry, since the earliest match between two stars leaves the most
        // to the later one.
        let mut star: Option<(usize, usize)> = None;
        let mut directories: Option<(usize, usize)> = None;
        let mut token = 0;
        let mut at = 0;

        loop {
            let matched = match (self.tokens.get(token), text.get(at)) {
                (None, None) | (Some(Token::Rest), _) => return true,
                (Some(Token::Star), _) => {
                    token += 1;
                    star = Some((token, at));
                    continue;
                }
                (Some(Token::Directories { none }), _) => {
                    token += 1;
                    star = None;
                    directories = Some((token, at));
                    *none
                }
                (Some(Token::Byte(byte)), Some(found)) => {
                    byte == found && step(&mut token, &mut at)
                }
                (Some(Token::Any), Some(found)) => *found != b'/' && step(&mut token, &mut at),
                (Some(Token::Class(set)), Some(found)) => {
                    set.has(*found) && step(&mut token, &mut at)
                }
                (None, Some(_)) | (Some(_), None) => false,
            };
            if matched {
                continue;
            }

            match (star, directories) {
                (Some((after, from)), _) if text.get(from).is_some_and(|byte| *byte != b'/') => {
                    star = Some((after, from + 1));
                    (token, at) = (after, from + 1);
                }
                (_, Some((after, from))) => {
                    let Some(slash) = text[from..].iter().position(|byte| *byte == b'/') else {
                        return false;
                    };
                    star = None;
                    directories = Some((after, from + slash + 1));
                    (token, at) = (after, from + slash + 1);
                }
                _ => return false,
            }
        }
    }
}

fn step(token: &mut usize, at: &mut usize) -> bool {
    *token += 1;
    *at += 1;
    true
}

/// Returns the meaning of the stars from `first` to `end`, and the position after them.
fn stars(pattern: &[u8], first: usize, end: usize) -> (Token, usize) {
    let alone = first == 0 || pattern[first - 1] == b'/';
    match &pattern[end..] {
        _ if end - first < 2 || !alone => (Token::Star, end),
        [] => (Token::Rest, end),
        [b'/', ..] => (Token::Directories { none: true }, end + 1),
        // An escaped slash is a required slash.
        [b'\\', b'/', ..] => (Token::Directories { none: false }, end + 2),
        _ => (Token::Star, end),
    }
}

/// A set of bytes, one bit for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct ByteSet([u64; 4]);

impl ByteSet {
    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    fn add(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    /// Parses the bracket expression with its first byte at `at`; returns the position after it.
    fn parse(pattern: &[u8], mut at: usize) -> Option<(Self, usize)> {
        let mut set = Self::default();
        let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
        at += usize::from(negated);

        // Possible start of a range; the first byte is a member even if it is `]`.
        let mut before = None;
        let mut first = true;

        loop {
            let byte = *pattern.get(at)?;
            at += 1;
            match byte {
                b']' if !first => break,
                b'\\' => {
                    let escaped = *pattern.get(at)?;
                    at += 1;
                    set.add(escaped);
                    before = Some(escaped);
                }
                b'-' if before.is_some() && pattern.get(at).is_some_and(|next| *next != b']') => {
                    let mut last = pattern[at];
                    at += 1;
                    if last == b'\\' {
                        last = *pattern.get(at)?;
                        at += 1;
                    }
                    (before.unwrap_or(last)..=last).for_each(|member| set.add(member));
                    before = None;
                }
                b'[' if pattern.get(at) == Some(&b':') => {
                    let start = at + 1;
                    let end = start + pattern[start..].iter().position(|byte| *byte == b']')?;
                    match pattern[start..end].strip_suffix(b":") {
                        Some(name) => {
                            set.add_named(name)?;
                            before = None;
                            at = end + 1;
                        }
                        // No class: the bracket itself is a member.
                        None => {
                            set.add(b'[');
                            before = Some(b'[');
                        }
                    }
                }
                member => {
                    set.add(member);
                    before = Some(member);
                }
            }
            first = false;
        }

        if negated {
            set.0 = set.0.map(|bits| !bits);
        }

        // A slash separates components and never matches a bracket.
        set.0[0] &= !(1 << b'/');
        Some((set, at))
    }

    /// Adds a POSIX class of ASCII; `None` for an unknown name.
    fn add_named(&mut self, name: &[u8]) -> Option<()> {
        let is_member: fn(u8) -> bool = match name {
            b"alnum" => |byte| byte.is_ascii_alphanumeric(),
            b"alpha" => |byte| byte.is_ascii_alphabetic(),
            b"blank" => |byte| matches!(byte, b' ' | b'\t'),
            b"cntrl" => |byte| byte.is_ascii_control(),
            b"digit" => |byte| byte.is_ascii_digit(),
            b"graph" => |byte| byte.is_ascii_graphic(),
            b"lower" => |byte| byte.is_ascii_lowercase(),
            b"print" => |byte| byte.is_ascii_graphic() || byte == b' ',
            b"punct" => |byte| byte.is_ascii_punctuation(),
            b"space" => |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'),
            b"upper" => |byte| byte.is_ascii_uppercase(),
            b"xdigit" => |byte| byte.is_ascii_hexdigit(),
            _ => return None,
        };

        (0..=u8::MAX)
            .filter(|byte| is_member(*byte))
            .for_each(|byte| self.add(byte));
        Some(())
    }
}

#[cfg(test)]
mod tests;
