//! Colour for streams that support it. No meaning depends on colour alone.
//!
//! Owns the decision per stream, and the few tints. Must not know the painted text.

use std::io::IsTerminal;

/// Value of `--color`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set or the terminal is dumb.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Meaning of a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tint {
    /// Neutral.
    Plain,
    /// Success.
    Good,
    /// Failure.
    Bad,
    /// Warning.
    Warn,
    /// Advice.
    Note,
    /// Less important.
    Dim,
    /// More important.
    Strong,
}

impl Tint {
    fn code(self) -> &'static str {
        match self {
            Tint::Plain => "",
            Tint::Good => "32",
            Tint::Bad => "1;31",
            Tint::Warn => "33",
            Tint::Note => "36",
            Tint::Dim => "2",
            Tint::Strong => "1",
        }
    }
}

/// Returns whether standard output is a terminal that can be cleared.
pub(super) fn is_screen() -> bool {
    let is_dumb = env("TERM").as_deref() == Some("dumb");
    std::io::stdout().is_terminal() && !is_dumb
}

/// Paints text, or leaves it unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Painter {
    on: bool,
}

impl Painter {
    /// Paints nothing.
    pub const PLAIN: Painter = Painter { on: false };
    /// Paints.
    pub const COLOR: Painter = Painter { on: true };

    /// Returns the painter for standard output.
    pub fn stdout(choice: ColorChoice) -> Self {
        Self {
            on: wanted(
                choice,
                std::io::stdout().is_terminal(),
                env("NO_COLOR").as_deref(),
                env("TERM").as_deref(),
            ),
        }
    }

    /// Returns the painter for standard error.
    pub fn stderr(choice: ColorChoice) -> Self {
        Self {
            on: wanted(
                choice,
                std::io::stderr().is_terminal(),
                env("NO_COLOR").as_deref(),
                env("TERM").as_deref(),
            ),
        }
    }

    /// Returns true for a painter with colour.
    pub fn is_on(self) -> bool {
        self.on
    }

    /// Returns `text`, in `tint` if colour is on.
    pub fn paint(self, tint: Tint, text: &str) -> String {
        if self.on && tint != Tint::Plain && !text.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", tint.code())
        } else {
            text.to_string()
        }
    }
}

fn env(name: &str) -> Option<String> {
    std::env::var_os(name).map(|v| v.to_string_lossy().into_owned())
}

/// Applies the rules of no-color.org: a set and not empty NO_COLOR overrides a terminal, and a flag
/// overrides both.
fn wanted(choice: ColorChoice, terminal: bool, no_color: Option<&str>, term: Option<&str>) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => terminal && no_color.is_none_or(str::is_empty) && term != Some("dumb"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_follows_the_flag_then_no_color_then_the_terminal() {
        assert!(wanted(ColorChoice::Auto, true, None, Some("xterm")));
        assert!(wanted(ColorChoice::Auto, true, Some(""), None));
        assert!(!wanted(ColorChoice::Auto, true, Some("1"), None));
        assert!(!wanted(ColorChoice::Auto, false, None, None));
        assert!(!wanted(ColorChoice::Auto, true, None, Some("dumb")));
        assert!(wanted(ColorChoice::Always, false, Some("1"), Some("dumb")));
        assert!(!wanted(ColorChoice::Never, true, None, None));
    }

    #[test]
    fn a_plain_painter_adds_nothing() {
        assert_eq!(Painter::PLAIN.paint(Tint::Bad, "x"), "x");
        assert_eq!(Painter::COLOR.paint(Tint::Good, "x"), "\x1b[32mx\x1b[0m");
        assert_eq!(Painter::COLOR.paint(Tint::Plain, "x"), "x");
    }
}
