//! "Did you mean …?": the known word that is nearest to one that is not known.

/// The nearest of the candidates, if one is near enough to have been meant.
pub(crate) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let length = word.chars().count();
    // A letter of it at least must stay.
    let limit = (1 + length / 4).min(length.saturating_sub(1));
    let near = candidates.into_iter().filter_map(|candidate| {
        let distance = match is_as_long(candidate, length, limit) {
            true if candidate.eq_ignore_ascii_case(word) => 0,
            true => distance(word, candidate),
            false => return None,
        };
        (distance <= limit).then_some((distance, candidate))
    });
    // Of equally near ones the alphabetically first, so that the answer is always the same.
    near.min().map(|(_, candidate)| candidate)
}

/// Every letter more or less has to be added or removed. Words may be a pod's and have any length: each is compared only with what
/// is nearly as long, and known words are short.
fn is_as_long(candidate: &str, length: usize, limit: usize) -> bool {
    candidate.chars().count().abs_diff(length) <= limit
}

/// How many letters must be added, removed, changed or swapped with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    strsim::osa_distance(one, other)
}

#[cfg(test)]
mod tests {
    use super::{is_as_long, nearest};

    #[test]
    fn only_what_could_have_been_meant_is_suggested() {
        let fields = ["volumeMounts", "volumeDevices", "env", "envFrom", "a"];
        for (word, expected) in [
            ("volumeMount", Some("volumeMounts")),
            ("volumemounts", Some("volumeMounts")),
            ("evn", Some("env")),
            ("envfrom", Some("envFrom")),
            ("ports", None),
            ("", None),
            ("b", None),
        ] {
            assert_eq!(nearest(word, fields), expected, "{word}");
        }
    }

    /// Regression: an annotation of 256 KiB was compared with each of a thousand names, letter by letter, which took seconds.
    #[test]
    fn words_of_any_length_are_compared_only_with_what_is_nearly_as_long() {
        let name = "a".repeat(253);
        for (length, is_compared) in [(202, true), (336, true), (339, false), (256 * 1024, false)] {
            assert_eq!(is_as_long(&name, length, 1 + length / 4), is_compared, "{length}");
        }
        // Would take a day.
        let names = vec![name; 1000];
        assert_eq!(nearest(&"a".repeat(1_000_000), names.iter().map(String::as_str)), None);
    }
}
