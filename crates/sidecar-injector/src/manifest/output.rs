//! Standard output: data and nothing else.

use std::io::{ErrorKind, Write as _};

use super::documents::Format;
use crate::failure::Failure;

/// Documents one after the other, in a form in which they can be read again.
#[derive(Default)]
pub(crate) struct Stream {
    text: String,
    /// JSON objects can follow each other as they are; among YAML they need separators.
    has_yaml: bool,
}

impl Stream {
    /// Adds a document with what stands before it in its source.
    pub(crate) fn push(&mut self, before: &str, text: &str, format: Format) {
        let is_yaml = self.has_yaml || format == Format::Yaml;
        let is_separated = self.text.is_empty() || before.starts_with("---");
        if is_yaml && !is_separated {
            self.end_line();
            self.text.push_str("---\n");
            self.text.push_str(before.trim_start_matches(['\r', '\n']));
        } else {
            if before.is_empty() || before.starts_with("---") {
                self.end_line();
            }
            self.text.push_str(before);
        }
        self.text.push_str(text);
        self.has_yaml = is_yaml;
    }

    fn end_line(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
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
