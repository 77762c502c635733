//! The JSON schema of definitions: derived from their types, written by hand for those whose shape somebody else knows.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{ContainerPatch, ContainerPatchHead, DefinitionSpec, Position, Untyped};

/// The schema of a definition's `spec`, in the dialect and with the transforms that the settings ask for.
pub fn schema(settings: SchemaSettings) -> Schema {
    settings.into_generator().into_root_schema_for::<DefinitionSpec>()
}

impl JsonSchema for Untyped {
    fn schema_name() -> Cow<'static, str> {
        "Untyped".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-preserve-unknown-fields": true})
    }
}

impl JsonSchema for ContainerPatch {
    fn schema_name() -> Cow<'static, str> {
        "ContainerPatch".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = ContainerPatchHead::json_schema(generator);
        schema.insert(
            "description".to_owned(),
            "What some of the pod's own containers get: beside `names`, `kinds` and `onConflict` any fields of a container."
                .into(),
        );
        schema.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
        schema
    }
}

impl JsonSchema for Position {
    fn schema_name() -> Cow<'static, str> {
        "Position".into()
    }

    /// A structural schema of Kubernetes has no "a string or a map", so the API server takes anything and the injector
    /// is the one who checks.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A place in a list of containers: First, Last, {before: NAME} or {after: NAME}.",
            "x-kubernetes-preserve-unknown-fields": true,
        })
    }
}

#[cfg(test)]
mod tests {
    use schemars::generate::SchemaSettings;

    #[test]
    fn every_part_of_a_definition_has_a_schema() {
        let schema =
            super::schema(SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true));
        let field =
            |pointer: &str| schema.pointer(pointer).unwrap_or_else(|| panic!("{pointer} in {schema:?}"));
        assert_eq!(field("/properties/patchContainers/items/properties/names/type"), "array");
        assert_eq!(field("/properties/patchContainers/items/x-kubernetes-preserve-unknown-fields"), true);
        assert_eq!(field("/properties/inject/properties/spec/x-kubernetes-preserve-unknown-fields"), true);
        assert_eq!(field("/properties/order/format"), "int32");
    }
}
