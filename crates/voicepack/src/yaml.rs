//! Reading YAML so that a mistake is told by file, line and field.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::ParseError;

/// Reads one document. Unknown fields are errors wherever the type says so.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, file: &Path) -> Result<T, ParseError> {
    let mut field = String::new();
    serde_saphyr::with_deserializer_from_str(text, |de| {
        serde_path_to_error::deserialize(de).map_err(|e| {
            field = e.path().to_string();
            e.into_inner()
        })
    })
    .map_err(|e| {
        let e = e.without_snippet();
        ParseError {
            file: file.to_owned(),
            line: e.location().map(|l| l.line()).filter(|l| *l > 0),
            field: std::mem::take(&mut field),
            problem: e.to_string(),
        }
    })
}

/// A string as YAML: JSON's double-quoted form is also YAML's.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
