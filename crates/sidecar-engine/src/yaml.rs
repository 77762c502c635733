//! YAML text as kubectl reads it, to a type or to JSON text.

use serde::de::DeserializeOwned;

use crate::error::DefinitionError;

/// kubectl's YAML is YAML 1.1 for scalars: `014` is twelve. Booleans (`yes`, `on`) agree by default.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { legacy_octal_numbers: true }
}

/// Reads one document into a type; unknown fields are the type's to refuse.
///
/// # Errors
/// With line, column and the line itself.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, DefinitionError> {
    serde_saphyr::from_str_with_options(text, options()).map_err(DefinitionError::text)
}

/// Turns one document into JSON text, its fields in the order in which they were written.
///
/// # Errors
/// With line, column and the line itself.
pub fn to_json(text: &str) -> Result<String, DefinitionError> {
    serde_saphyr::with_deserializer_from_str_with_options(text, options(), |deserializer| {
        let mut json = Vec::with_capacity(text.len());
        serde_transcode::transcode(deserializer, &mut serde_json::Serializer::new(&mut json))
            .map_err(serde::de::Error::custom)?;
        Ok(json)
    })
    .map_err(DefinitionError::text)
    .and_then(|json| String::from_utf8(json).map_err(DefinitionError::text))
}

#[cfg(test)]
mod tests {
    #[test]
    fn scalars_are_read_as_kubectl_reads_them() {
        let json =
            super::to_json("b: yes\na: [on, 014, 1_000, 0b11, ~, '014', \"y\"]\nc: {d: 0.5}\n").unwrap();
        assert_eq!(json, r#"{"b":true,"a":[true,12,1000,3,null,"014","y"],"c":{"d":0.5}}"#);
    }
}
