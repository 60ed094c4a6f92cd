//! The JSON Schemas of what operators and owners write, made of the types that read it. They are published as files in
//! `envoy/docs/`, and a test holds those to these.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use crate::filter::config::Config;
use crate::tenant::Settings;

/// That of the plugin's configuration in Envoy.
pub fn filter() -> serde_json::Result<String> {
    text::<Config>("The configuration of the filter dcr_edge")
}

/// That of a tenant's settings.
pub fn settings() -> serde_json::Result<String> {
    text::<Settings>("The settings of a tenant")
}

fn text<T: JsonSchema>(title: &str) -> serde_json::Result<String> {
    let generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let mut schema: Schema = generator.into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    for_readers(schema.as_object_mut());
    let mut text = serde_json::to_string_pretty(&schema)?;
    text.push('\n');
    Ok(text)
}

/// Takes the line ends and the links of the code out of descriptions.
fn for_readers(schema: Option<&mut serde_json::Map<String, serde_json::Value>>) {
    let Some(members) = schema else { return };
    for (name, value) in members {
        match value {
            serde_json::Value::String(text) if name == "description" => {
                let words: Vec<&str> = text.split_whitespace().collect();
                *text = words.join(" ").replace("[`", "`").replace("`]", "`");
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(|item| for_readers(item.as_object_mut())),
            other => for_readers(other.as_object_mut()),
        }
    }
}
