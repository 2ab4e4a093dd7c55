//! Wildcards as git matches them, byte by byte.
//!
//! A pattern is compiled once and then matched without allocation. The time of one match is bounded by
//! the product of both lengths for each directory of the path: patterns come from other hosts.

/// A compiled pattern of `*`, `**`, `?`, brackets and escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wildcard {
    tokens: Box<[Token]>,
    /// The literal bytes at the beginning and at the end, which decide most paths.
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

/// What a compiled pattern is, as far as a matcher of many patterns can use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape<'a> {
    /// No wildcard: equal bytes match.
    Literal(&'a [u8]),
    /// `*.extension`, without a further dot or slash.
    Extension(&'a [u8]),
    /// Anything else.
    Other,
}

impl Wildcard {
    /// Compiles `pattern`; `None` when it matches nothing, as with an unclosed bracket.
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

    /// What the pattern is.
    pub(super) fn shape(&self) -> Shape<'_> {
        if self.prefix.len() == self.tokens.len() {
            return Shape::Literal(&self.prefix);
        }

        match (&self.tokens[..], &self.suffix[..]) {
            ([Token::Star, rest @ ..], [b'.', extension @ ..])
                if rest.len() == self.suffix.len()
                    && !extension.contains(&b'.')
                    && !extension.contains(&b'/') =>
            {
                Shape::Extension(extension)
            }
            _ => Shape::Other,
        }
    }

    /// The pattern of the directories in which this one can match something; `None` is any directory.
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

    /// Whether the pattern matches the whole of `text`, which has no empty component.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        text.starts_with(&self.prefix) && text.ends_with(&self.suffix) && self.matches_slowly(text)
    }

    fn matches_slowly(&self, text: &[u8]) -> bool {
        // Where to go on when what follows a star does not match: the star takes a byte, or a directory,
        // more. An earlier star need not be tried again, since the earliest match of what lies between
        // two stars leaves the most to the later one.
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

/// What the stars from `first` to `end` mean, and where the pattern goes on.
fn stars(pattern: &[u8], first: usize, end: usize) -> (Token, usize) {
    let alone = first == 0 || pattern[first - 1] == b'/';
    match &pattern[end..] {
        _ if end - first < 2 || !alone => (Token::Star, end),
        [] => (Token::Rest, end),
        [b'/', ..] => (Token::Directories { none: true }, end + 1),
        // An escaped slash is a slash that has to be there.
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

    /// The bracket expression whose first byte is at `at`, and where the pattern goes on after it.
    fn parse(pattern: &[u8], mut at: usize) -> Option<(Self, usize)> {
        let mut set = Self::default();
        let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
        at += usize::from(negated);

        // What a range may begin with; the first byte is a member even where it is `]`.
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
                        // No class: a bracket that is a member itself.
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

        // A slash separates components, whatever a bracket says.
        set.0[0] &= !(1 << b'/');
        Some((set, at))
    }

    /// Adds a POSIX class of ASCII; `None` when there is no class of that name.
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
