//! Which members of an object are shown: `fields` and `include_fields`.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde_json::{Map, Value};

use super::parameters::Parameters;
use crate::store::http::error::ManagementError;

/// Which members are shown.
pub struct Fields {
    named: Vec<String>,
    /// Whether the named ones are shown; otherwise all others are.
    include: bool,
}

impl Fields {
    fn parse(parameters: &[(String, String)]) -> Result<Self, ManagementError> {
        let mut fields = Self { named: Vec::new(), include: true };
        for (name, value) in parameters {
            match name.as_str() {
                "fields" => {
                    let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                    fields.named.extend(names.map(str::to_owned));
                }
                "include_fields" => {
                    fields.include = value
                        .parse()
                        .map_err(|_| ManagementError::invalid_query("include_fields: expected true or false"))?;
                }
                _ => {}
            }
        }
        Ok(fields)
    }

    /// What is shown of an object: all of it if no member is named.
    pub fn of(&self, mut object: Map<String, Value>) -> Map<String, Value> {
        if !self.named.is_empty() {
            object.retain(|name, _| self.named.contains(name) == self.include);
        }
        object
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

    #[test]
    fn the_named_members_are_shown_or_all_but_them() {
        let shown = |parameters: &[(&str, &str)]| {
            let parameters: Vec<_> =
                parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let Value::Object(object) = json!({"a": 1, "b": 2, "c": 3}) else { unreachable!() };
            Fields::parse(&parameters)
                .map(|fields| Value::Object(fields.of(object)))
                .map_err(|error| format!("{error:?}"))
        };
        assert_eq!(shown(&[]).unwrap(), json!({"a": 1, "b": 2, "c": 3}));
        assert_eq!(shown(&[("include_fields", "false")]).unwrap(), json!({"a": 1, "b": 2, "c": 3}));
        assert_eq!(shown(&[("fields", "a,c,x")]).unwrap(), json!({"a": 1, "c": 3}));
        assert_eq!(shown(&[("fields", "a, c"), ("include_fields", "false")]).unwrap(), json!({"b": 2}));
        assert!(shown(&[("include_fields", "1")]).unwrap_err().contains("include_fields: expected"));
    }
}
