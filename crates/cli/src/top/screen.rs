//! The terminal that `duologue top` fills: the plain text, again and again, on a screen of its own.

use std::io::{self, Write as _};

use super::view::View;

/// Another screen beside the one with the shell's lines, without a cursor; long lines are cut off.
const OPEN: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// Back, with the cursor.
const CLOSE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// To the first place; the rest of a line; all below.
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K";
const BELOW: &str = "\x1b[J";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// The terminal, as it was again once this is dropped.
pub struct Screen(());

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Where it does not take text.
    pub fn open() -> io::Result<Self> {
        write(OPEN)?;
        Ok(Self(()))
    }

    /// Shows what there is, and what is wrong.
    ///
    /// # Errors
    /// Where the terminal does not take it.
    pub fn draw(&mut self, view: &View, trouble: Option<&str>) -> io::Result<()> {
        write(&frame(view, trouble))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where the terminal has gone there is nothing to put back.
        let _ = write(CLOSE);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A picture that is written over the last, so that nothing flickers.
fn frame(view: &View, trouble: Option<&str>) -> String {
    let mut frame = HOME.to_owned();
    for (number, line) in view.plain().lines().enumerate() {
        let heading = !line.is_empty() && line.split('(').next().is_some_and(is_heading);
        let style = if number == 0 || heading { BOLD } else { "" };
        frame.push_str(&format!("{style}{line}{PLAIN}{REST_OF_LINE}\r\n"));
    }
    let (style, line) = match trouble {
        Some(trouble) => (RED, trouble),
        None => (DIM, "Ctrl-C leaves"),
    };
    frame.push_str(&format!(
        "{REST_OF_LINE}\r\n{style}{line}{PLAIN}{REST_OF_LINE}{BELOW}"
    ));
    frame
}

fn is_heading(text: &str) -> bool {
    text.trim().len() > 3 && text.chars().all(|c| c.is_ascii_uppercase() || c == ' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_the_text_with_its_headings_and_what_is_wrong() {
        let view = View {
            title: "Duologue at here".into(),
            period: "last 9 s".into(),
            ..View::default()
        };
        let shown = frame(&view, Some("nobody answers"));
        assert!(shown.starts_with(&format!("{HOME}{BOLD}Duologue at here{PLAIN}")));
        assert!(
            shown.contains(&format!("{BOLD}LATENCY (last 9 s){PLAIN}")),
            "{shown:?}"
        );
        assert!(shown.contains(&format!("{RED}nobody answers{PLAIN}")));
        assert!(frame(&view, None).contains("Ctrl-C"));
        // Every line is wiped to its end, and all below the last.
        assert!(shown.lines().all(|line| line.contains(REST_OF_LINE)));
        assert!(shown.ends_with(BELOW));
    }
}
