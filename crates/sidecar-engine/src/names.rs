//! Which names Kubernetes allows where (apimachinery pkg/util/validation).

/// No name of an object is longer.
pub(crate) const LONGEST: usize = 253;

/// A lower-case word of letters, digits and inner hyphens: what containers, volumes and namespaces are called.
pub(crate) fn is_label(name: &str) -> bool {
    name.len() <= 63 && is_word(name)
}

/// Labels with dots between: what most objects are called.
pub(crate) fn is_subdomain(name: &str) -> bool {
    name.len() <= LONGEST && name.split('.').all(is_word)
}

/// What ports are called, `IANA_SVC_NAME`: a short label with a letter and no two hyphens together.
pub(crate) fn is_port_name(name: &str) -> bool {
    name.len() <= 15
        && is_word(name)
        && !name.contains("--")
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// The key of a label or an annotation: a name, maybe with a domain and `/` in front.
pub(crate) fn is_key(key: &str) -> bool {
    let (domain, name) = match key.split_once('/') {
        Some((domain, name)) => (Some(domain), name),
        None => (None, key),
    };
    domain.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name)
}

/// The value of a label; it may be empty.
pub(crate) fn is_label_value(value: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = [value.as_bytes().first(), value.as_bytes().last()];
    value.len() <= 63
        && value.bytes().all(is_inner)
        && ends.into_iter().flatten().all(u8::is_ascii_alphanumeric)
}

/// A parameter's name can stand in an expression behind a dot.
pub(crate) fn is_parameter(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The label that was probably meant.
pub(crate) fn nearest_label(name: &str) -> Option<String> {
    let lower: String =
        name.to_lowercase().chars().map(|c| if matches!(c, '_' | '.' | ' ') { '-' } else { c }).collect();
    let label = lower.trim_matches('-');
    is_label(label).then(|| label.to_owned())
}

fn is_word(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.bytes().all(is_inner) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kubernetes() {
        for (name, label, port, key, value) in [
            ("a", true, true, true, true),
            ("a-1", true, true, true, true),
            ("1", true, false, true, true),
            ("a--b", true, false, true, true),
            ("sixteen-letters-", false, false, false, false),
            ("sixteen-letters1", true, false, true, true),
            ("", false, false, false, true),
            ("-a", false, false, false, false),
            ("a-", false, false, false, false),
            ("A", false, false, true, true),
            ("a_b.c", false, false, true, true),
            ("a b", false, false, false, false),
            ("ü", false, false, false, false),
            ("a.b/c", false, false, true, false),
            ("A/c", false, false, false, false),
            ("/c", false, false, false, false),
            ("a/", false, false, false, false),
            ("a/b/c", false, false, false, false),
        ] {
            assert_eq!(is_label(name), label, "label {name}");
            assert_eq!(is_port_name(name), port, "port {name}");
            assert_eq!(is_key(name), key, "key {name}");
            assert_eq!(is_label_value(name), value, "value {name}");
        }
        assert!(is_label(&"a".repeat(63)) && !is_label(&"a".repeat(64)));
        assert!(is_label_value(&"a".repeat(63)) && !is_label_value(&"a".repeat(64)));
        assert!(
            is_parameter("logLevel_2") && !is_parameter("2a") && !is_parameter("a-b") && !is_parameter("")
        );
    }

    #[test]
    fn a_label_is_made_from_what_nearly_is_one() {
        for (name, label) in [("My_App", Some("my-app")), ("app-", Some("app")), ("ü", None), ("", None)] {
            assert_eq!(nearest_label(name).as_deref(), label);
        }
    }
}
