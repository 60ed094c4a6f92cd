//! Which members of an object an answer has.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Serialize;
use serde_json::{Map, Value};

use super::parameters::Parameters;
use crate::store::db;
use crate::store::http::error::ManagementError;

/// The members that are asked for: `fields`, separated by commas, with `include_fields=false` all others.
#[derive(Debug, Default)]
pub struct Fields {
    names: Vec<String>,
    excludes: bool,
}

impl Fields {
    fn parse(parameters: &[(String, String)]) -> Result<Self, ManagementError> {
        let mut fields = Self::default();
        for (name, value) in parameters {
            match name.as_str() {
                "fields" => {
                    let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                    fields.names = names.map(str::to_owned).collect();
                }
                "include_fields" => {
                    let includes: bool = value
                        .parse()
                        .map_err(|_| ManagementError::invalid_query("include_fields: expected true or false"))?;
                    fields.excludes = !includes;
                }
                _ => {}
            }
        }
        Ok(fields)
    }

    /// Whether a member is asked for.
    pub fn has(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|asked| asked == name) != self.excludes
    }

    /// Those members of `object`.
    pub fn of(&self, object: &impl Serialize) -> Result<Map<String, Value>, ManagementError> {
        let Ok(Value::Object(mut members)) = serde_json::to_value(object) else {
            return Err(db::Error::Failed("an answer cannot be written as JSON".to_owned()).into());
        };
        members.retain(|name, _| self.has(name));
        Ok(members)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Fields {
    type Rejection = ManagementError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ManagementError> {
        Self::parse(&Parameters::of(parts)?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(parameters: &[(&str, &str)]) -> Result<Value, String> {
        let parameters: Vec<_> =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let fields = Fields::parse(&parameters).map_err(|error| format!("{error:?}"))?;
        Ok(Value::Object(fields.of(&json!({"a": 1, "b": 2, "c": 3})).unwrap()))
    }

    #[test]
    fn an_answer_has_the_members_that_are_asked_for() {
        let all = json!({"a": 1, "b": 2, "c": 3});
        for everything in [&[][..], &[("fields", "")], &[("include_fields", "false")], &[("page", "1")]] {
            assert_eq!(of(everything).unwrap(), all);
        }
        assert_eq!(of(&[("fields", "c, a,x")]).unwrap(), json!({"a": 1, "c": 3}));
        assert_eq!(of(&[("fields", "a"), ("include_fields", "true")]).unwrap(), json!({"a": 1}));
        assert_eq!(of(&[("fields", "a,c"), ("include_fields", "false")]).unwrap(), json!({"b": 2}));
        assert!(of(&[("include_fields", "1")]).unwrap_err().contains("include_fields: expected"));
    }
}
