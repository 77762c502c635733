//! "Did you mean …?": the known word that is nearest to one that is not known.

/// The nearest of the candidates, if one is near enough to have been meant.
pub(crate) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let length = word.chars().count();
    // A letter of it at least must stay.
    let limit = (1 + length / 4).min(length.saturating_sub(1));
    let near = candidates.into_iter().filter_map(|candidate| {
        let distance = if candidate.eq_ignore_ascii_case(word) { 0 } else { distance(word, candidate) };
        (distance <= limit).then_some((distance, candidate))
    });
    // Of equally near ones the alphabetically first, so that the answer is always the same.
    near.min().map(|(_, candidate)| candidate)
}

/// How many letters must be added, removed, changed or swapped with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    strsim::osa_distance(one, other)
}

#[cfg(test)]
mod tests {
    use super::nearest;

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
}
