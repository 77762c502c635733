//! Where something is in a pod: as a JSON pointer for patches, by name for people. Nothing is written until it is needed.

use std::fmt::{self, Write as _};

use crate::json::Json;

/// A place in a pod, from the inside out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'p> {
    Top,
    Field(&'p str),
    /// Its number, and the item itself for its name.
    Item(usize, &'p str),
    /// After the last item.
    End,
}

impl<'p> Path<'p> {
    pub(crate) const TOP: Path<'static> = Path { parent: None, step: Step::Top };

    pub(crate) fn field(&'p self, name: &'p str) -> Path<'p> {
        Path { parent: Some(self), step: Step::Field(name) }
    }

    /// An item of a list, and what it is called.
    pub(crate) fn item(&'p self, index: usize, name: &'p str) -> Path<'p> {
        Path { parent: Some(self), step: Step::Item(index, name) }
    }

    pub(crate) fn end(&'p self) -> Path<'p> {
        Path { parent: Some(self), step: Step::End }
    }

    /// As a JSON pointer (RFC 6901).
    pub(crate) fn pointer(&self) -> String {
        let mut pointer = String::with_capacity(48);
        self.write_pointer(&mut pointer);
        pointer
    }

    fn write_pointer(&self, pointer: &mut String) {
        if let Some(parent) = self.parent {
            parent.write_pointer(pointer);
        }
        match self.step {
            Step::Top => {}
            Step::Field(name) => {
                pointer.push('/');
                if name.contains(['~', '/']) {
                    pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
                } else {
                    pointer.push_str(name);
                }
            }
            Step::Item(index, _) => {
                let _ = write!(pointer, "/{index}");
            }
            Step::End => pointer.push_str("/-"),
        }
    }
}

/// `spec.containers[app].env[LOG_DIR]`.
impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut is_first = true;
        if let Some(parent) = self.parent {
            write!(formatter, "{parent}")?;
            is_first = matches!(parent.step, Step::Top);
        }
        match self.step {
            Step::Top | Step::End => Ok(()),
            Step::Field(name) if name.contains(['.', '/']) => write!(formatter, "[{name}]"),
            Step::Field(name) if is_first => formatter.write_str(name),
            Step::Field(name) => write!(formatter, ".{name}"),
            Step::Item(_, name) => write!(formatter, "[{name}]"),
        }
    }
}

/// What an item of a list is called: its keys, in the order of the rule.
pub(crate) fn name_of(item: &Json<'_>, keys: &[&str]) -> String {
    let mut name = String::new();
    for value in keys.iter().filter_map(|key| item.field(key)) {
        if !name.is_empty() {
            name.push('/');
        }
        match value.text() {
            Some(text) => name.push_str(&text),
            None => name.push_str(&value.to_string()),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::Path;

    #[test]
    fn slashes_and_tildes_are_escaped() {
        assert_eq!(Path::TOP.field("a~b/c").end().pointer(), "/a~0b~1c/-");
    }
}
