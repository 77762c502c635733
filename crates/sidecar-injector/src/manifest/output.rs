//! Standard output: data and nothing else.

use std::io::{ErrorKind, Write as _};

use super::documents::Format;
use crate::failure::Failure;

/// Documents one after the other, in a form in which they can be read again.
#[derive(Default)]
pub(crate) struct Stream {
    text: String,
    last: Option<Format>,
}

impl Stream {
    /// Adds a document with what stands before it in its source; `first` of its source or not.
    pub(crate) fn push(&mut self, before: &str, text: &str, format: Format, first: bool) {
        if !self.text.is_empty() && !self.text.ends_with('\n') && (first || before.is_empty()) {
            self.text.push('\n');
        }
        let is_separated = before.starts_with("---") || self.last.is_none();
        if first && !is_separated && (format, self.last) != (Format::Json, Some(Format::Json)) {
            self.text.push_str("---\n");
        }
        self.text.push_str(before);
        self.text.push_str(text);
        self.last = Some(format);
    }

    pub(crate) fn print(&self) -> Result<(), Failure> {
        print(&self.text)
    }
}

/// Writes to standard output. A reader that has gone (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::internal(format!("cannot write: {error}")))
        }
        _ => Ok(()),
    }
}
