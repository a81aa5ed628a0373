//! Reading fields of a JSON object with errors that name the field.

use serde_json::{Map, Value};

use super::EventError;

/// A JSON object and where it stands in the event.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: &'a str,
}

impl<'a> Fields<'a> {
    pub(super) fn of(value: &'a Value, path: &'a str) -> Result<Self, EventError> {
        match value {
            Value::Object(map) => Ok(Self { map, path }),
            other => Err(wrong(path, "an object", other)),
        }
    }

    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// The field, `None` when absent; a JSON null is a value.
    pub(super) fn raw(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name)
    }

    /// The field, `None` when absent or null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, EventError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.path(name), "a string", other)),
        }
    }

    pub(super) fn required_text(&self, name: &str) -> Result<&'a str, EventError> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, EventError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(wrong(&self.path(name), "true or false", other)),
        }
    }

    /// A number within `range`.
    pub(super) fn number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<f64>,
    ) -> Result<Option<f64>, EventError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let path = self.path(name);
        let number = value
            .as_f64()
            .ok_or_else(|| wrong(&path, "a number", value))?;
        if range.contains(&number) {
            Ok(Some(number))
        } else {
            let (low, high) = (range.start(), range.end());
            Err(EventError::value(
                path,
                format!("{number} is out of range: {low} to {high}"),
            ))
        }
    }

    pub(super) fn required_number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<f64>,
    ) -> Result<f64, EventError> {
        self.number(name, range)?.ok_or_else(|| self.missing(name))
    }

    pub(super) fn list(&self, name: &str) -> Result<Option<&'a [Value]>, EventError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(wrong(&self.path(name), "a list", other)),
        }
    }

    pub(super) fn missing(&self, name: &str) -> EventError {
        let path = self.path(name);
        EventError {
            code: "missing_required_parameter",
            message: format!("{path} is missing"),
            param: Some(path),
            event_id: None,
            server_fault: false,
        }
    }
}

pub(super) fn wrong(path: &str, expected: &str, found: &Value) -> EventError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    EventError {
        code: "invalid_type",
        message: format!("{path} must be {expected}; it is {found}"),
        param: Some(path.to_owned()),
        event_id: None,
        server_fault: false,
    }
}
