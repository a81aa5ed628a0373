//! Server-sent events, as far as chat completions use them: the `data` of each event.
//!
//! Source: the HTML standard, section "Server-sent events". Lines are found in bytes, so a character split between
//! two network reads is whole again before it is read as UTF-8.

/// A line longer than this is not from a language model.
const MAX_LINE: usize = 1024 * 1024;

/// Finds events in what the network brings.
#[derive(Debug, Default)]
pub(super) struct SseParser {
    line: Vec<u8>,
    data: String,
    has_data: bool,
    after_cr: bool,
}

impl SseParser {
    /// Adds bytes; appends the data of each event that they complete.
    ///
    /// # Errors
    /// What is wrong, when a line or an event is too long or not UTF-8.
    pub(super) fn push(&mut self, bytes: &[u8], events: &mut Vec<String>) -> Result<(), String> {
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => self.end_line(events)?,
                _ if self.line.len() >= MAX_LINE => {
                    return Err(format!("a line of more than {MAX_LINE} bytes"));
                }
                _ => self.line.push(byte),
            }
        }
        Ok(())
    }

    /// The stream has ended: an event without its blank line still counts.
    pub(super) fn finish(&mut self, events: &mut Vec<String>) -> Result<(), String> {
        if !self.line.is_empty() {
            self.end_line(events)?;
        }
        self.end_event(events);
        Ok(())
    }

    fn end_line(&mut self, events: &mut Vec<String>) -> Result<(), String> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            self.end_event(events);
            return Ok(());
        }
        let line = std::str::from_utf8(&line).map_err(|_| "text that is not UTF-8".to_owned())?;
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        // Comments and the fields event, id and retry say nothing that chat completions need.
        if let Some(data) = line.strip_prefix("data:") {
            if self.has_data {
                self.data.push('\n');
            }
            self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            self.has_data = true;
            if self.data.len() > MAX_LINE {
                return Err(format!("an event of more than {MAX_LINE} bytes"));
            }
        } else if line.starts_with('<') || line.starts_with('{') {
            let start: String = line.chars().take(40).collect();
            return Err(format!("a line that is no event, {start:?}"));
        }
        Ok(())
    }

    fn end_event(&mut self, events: &mut Vec<String>) {
        if std::mem::take(&mut self.has_data) {
            events.push(std::mem::take(&mut self.data));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn run<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<String>, String> {
        let (mut parser, mut events) = (SseParser::default(), Vec::new());
        for read in reads {
            parser.push(read, &mut events)?;
        }
        parser.finish(&mut events)?;
        Ok(events)
    }

    #[test]
    fn every_kind_of_line_end_counts_once() {
        let text =
            b"data: a\n\ndata: b\r\n\r\ndata:c\r\r: comment\n\nid: 7\ndata: d\ndata: e\n\ndata: f";
        assert_eq!(run([&text[..]]).unwrap(), ["a", "b", "c", "d\ne", "f"]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let long = vec![b'x'; MAX_LINE + 1];
        assert!(
            run([&b"data: "[..], &long])
                .unwrap_err()
                .contains("more than")
        );
    }

    #[test]
    fn a_web_page_is_refused() {
        assert!(
            run([&b"<!DOCTYPE html>\n"[..]])
                .unwrap_err()
                .contains("DOCTYPE")
        );
    }

    proptest! {
        #[test]
        fn how_the_network_splits_the_bytes_does_not_matter(
            text in "(data: ?[a-zé\u{1f600}]{0,5}(\r\n|\n|\r)|\n|\r\n|: x\n){0,12}", cut in 0usize..80, cut2 in 0usize..80,
        ) {
            let bytes = text.as_bytes();
            let (a, b) = (cut.min(bytes.len()), cut2.min(bytes.len()));
            let (a, b) = (a.min(b), a.max(b));
            prop_assert_eq!(run([&bytes[..a], &bytes[a..b], &bytes[b..]]), run([bytes]));
        }
    }
}
