//! Mistakes in texts, drawn as rustc draws them: the line, a caret, what may help.

use std::borrow::Cow;
use std::io::IsTerminal as _;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// A place in a text, in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Spot<'t> {
    /// What the text is called.
    pub(crate) name: &'t str,
    pub(crate) text: &'t str,
    /// Absent: the whole text.
    pub(crate) range: Option<Range<usize>>,
}

/// A mistake.
#[derive(Debug)]
pub(crate) struct Mistake<'t> {
    pub(crate) code: Option<&'t str>,
    pub(crate) message: &'t str,
    pub(crate) spot: Spot<'t>,
    /// Further lines below the text.
    pub(crate) help: Option<String>,
    pub(crate) note: Option<String>,
    /// Another place that has to do with it, and what.
    pub(crate) other: Option<(&'t str, Spot<'t>)>,
}

impl<'t> Mistake<'t> {
    pub(crate) fn new(message: &'t str, spot: Spot<'t>) -> Self {
        Mistake { code: None, message, spot, help: None, note: None, other: None }
    }

    /// For standard error: with colours on a terminal only.
    pub(crate) fn draw(self) -> String {
        let title = Level::ERROR.primary_title(self.message);
        let title = match self.code {
            Some(code) => title.id(code),
            None => title,
        };
        let mut report = vec![self.spot.below(Group::with_title(title), AnnotationKind::Primary)];
        let further = [(self.help, Level::HELP), (self.note, Level::NOTE)];
        for (text, level) in further.into_iter().filter_map(|(text, level)| Some((text?, level))) {
            if let Some(group) = report.pop() {
                report.push(group.element(level.message(text)));
            }
        }
        if let Some((what, spot)) = self.other {
            let title = Group::with_title(Level::NOTE.secondary_title(what));
            report.push(spot.below(title, AnnotationKind::Context));
        }
        let is_plain = !std::io::stderr().is_terminal() || std::env::var_os("NO_COLOR").is_some();
        let renderer = if is_plain { Renderer::plain() } else { Renderer::styled() };
        renderer.render(&report)
    }
}

impl<'t> Spot<'t> {
    fn below(self, group: Group<'t>, kind: AnnotationKind) -> Group<'t> {
        match self.range {
            Some(range) => {
                let end = range.end.min(self.text.len());
                let span = range.start.min(end)..end;
                group.element(
                    Snippet::source(Cow::Borrowed(self.text)).path(self.name).annotation(kind.span(span)),
                )
            }
            None => group.element(Origin::path(self.name)),
        }
    }
}
