//! A chart's values.yaml with its comments: `# --` says what a value is for, `# @schema` what it may be.

/// One key, with what the comments above it say.
pub(super) struct Entry<'a> {
    /// The keys that lead to it, with dots between them.
    pub(super) name: String,
    /// The default, when it stands on the line of the key.
    pub(super) default: &'a str,
    pub(super) meaning: Option<String>,
    /// Keywords of JSON Schema, as between the braces of a YAML map.
    pub(super) rules: String,
}

/// All keys. Reads the plain block style that the charts' values.yaml are written in.
pub(super) fn entries(values: &str) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    let mut parents: Vec<(usize, &str)> = Vec::new();
    let mut meaning: Option<String> = None;
    let mut rules = String::new();
    for line in values.lines() {
        let word = line.trim_start();
        let indent = line.len() - word.len();
        if let Some(start) = word.strip_prefix("# -- ") {
            meaning = Some(start.to_owned());
        } else if let Some(rule) = word.strip_prefix("# @schema ") {
            rules.push_str(rule);
            rules.push(' ');
        } else if let Some(more) = word.strip_prefix("# ") {
            if let Some(text) = &mut meaning {
                text.push(' ');
                text.push_str(more);
            }
        } else if let Some((key, value)) = word.split_once(':') {
            while parents.last().is_some_and(|(depth, _)| *depth >= indent) {
                parents.pop();
            }
            parents.push((indent, key));
            let names: Vec<&str> = parents.iter().map(|(_, name)| *name).collect();
            entries.push(Entry {
                name: names.join("."),
                default: value.trim(),
                meaning: meaning.take(),
                rules: std::mem::take(&mut rules),
            });
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::entries;

    #[test]
    fn comments_belong_to_the_key_below_them() {
        let values = "# A section.\na:\n  # -- One\n  # and more\n  # @schema minimum: 1,\n  # @schema maximum: 2\n  b: 1\n  c: 2\n";
        let read: Vec<_> = entries(values)
            .into_iter()
            .map(|entry| (entry.name, entry.default, entry.meaning.unwrap_or_default(), entry.rules))
            .collect();
        let row = |name: &str, default, meaning: &str, rules: &str| {
            (name.to_owned(), default, meaning.to_owned(), rules.to_owned())
        };
        assert_eq!(
            read,
            [
                row("a", "", "", ""),
                row("a.b", "1", "One and more", "minimum: 1, maximum: 2 "),
                row("a.c", "2", "", "")
            ]
        );
    }
}
